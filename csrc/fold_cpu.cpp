// The CPU kernels of x's first channels. Compiled once for each instruction set, as interlace_cpu.cpp is, and under
// the same rules.
#include "fold_cpu.h"
#include "signs_cpu.h"

namespace tin {
namespace {

constexpr int64_t kRun = 512; // channels whose sums stay in the first-level cache

TIN_INLINE int64_t lesser(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// `run` channels of one frame, from channel `first`.
template <class T>
void copy_run(const FoldArgs<T>& args, int64_t frame, int64_t first, int64_t run) {
  using A = Acc<T>;
  const T* __restrict__ x = args.x + frame * args.pixels * args.channels + first;
  T* __restrict__ fold = args.fold + frame * args.pixels * args.folded + first;
  A totals[kRun] = {};
  for (int64_t block = 0; block < args.pixels; block += kPoolRows) {
    A sums[kRun] = {};
    const int64_t end = lesser(block + kPoolRows, args.pixels);
    for (int64_t pixel = block; pixel < end; ++pixel) {
      const T* from = x + pixel * args.channels;
      T* to = fold + pixel * args.folded;
      memcpy(to, from, static_cast<size_t>(run) * sizeof(T));
      for (int64_t c = 0; c < run; ++c) {
        sums[c] += widen(from[c]);
      }
    }
    for (int64_t c = 0; c < run; ++c) {
      totals[c] += sums[c];
    }
  }
  A* means = args.means + frame * args.folded + first;
  for (int64_t c = 0; c < run; ++c) {
    means[c] = totals[c] / static_cast<A>(args.pixels);
  }
}

template <class T>
void copy(const FoldArgs<T>& args, int64_t begin, int64_t end) {
  const int64_t blocks = fold_blocks(args);
  for (int64_t item = begin; item < end;) {
    const int64_t frame = item / blocks, block = item % blocks;
    const int64_t count = lesser(lesser(end - item, blocks - block), kRun / kFoldBlock);
    const int64_t first = block * kFoldBlock;
    copy_run(args, frame, first, lesser(count * kFoldBlock, args.folded - first));
    item += count;
  }
}

template <class T>
void spread(const SpreadArgs<T>& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    T* __restrict__ x_grad = args.x_grad + row * args.channels;
    const Acc<T>* __restrict__ shares = args.shares + row / args.pixels * args.folded;
    if (!args.signs) {
      for (int64_t c = 0; c < args.folded; ++c) {
        narrow(widen(x_grad[c]) + shares[c], x_grad[c]);
      }
      continue;
    }
    const uint8_t* signs = args.signs + row * args.channels / 8;
    int64_t c = 0;
    if constexpr (std::is_same_v<T, Acc<T>>) {
      for (; c + kSigns<T> <= args.folded; c += kSigns<T>) {
        pass_sum_of_several(x_grad + c, x_grad + c, shares + c, signs + c / 8);
      }
    }
    for (; c < args.folded; c += 8) {
      T sums[8];
#if defined(__AVX2__)
      if constexpr (sizeof(T) == 2) {
        narrow_eight(_mm256_add_ps(widen_eight(x_grad + c), _mm256_loadu_ps(shares + c)), sums);
        pass_eight(x_grad + c, sums, signs[c / 8]);
        continue;
      }
#endif
      for (int j = 0; j < 8; ++j) {
        narrow(widen(x_grad[c + j]) + shares[c + j], sums[j]);
      }
      pass_eight(x_grad + c, sums, signs[c / 8]);
    }
  }
}

template <class T>
constexpr FoldKernels<T> kernels = {copy<T>, spread<T>};

} // namespace

TIN_DEFINE_LEVEL(FoldTable, fold, kernels);

} // namespace tin
