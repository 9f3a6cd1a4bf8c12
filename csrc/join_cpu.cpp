// The CPU kernels of the join. Compiled once for each instruction set, as interlace_cpu.cpp is, and under the same rules.
#include "join_cpu.h"
#include "signs_cpu.h"

namespace tin {
namespace {

// branch = relu(branch + identity), and eight elements' signs a byte unless there are to be none.
template <class T>
TIN_INLINE void add_relu(T* branch, const T* identity, uint8_t* signs, int64_t length) {
  if (!signs) {
#pragma GCC ivdep
    for (int64_t i = 0; i < length; ++i) {
      narrow(relu(widen(branch[i]) + widen(identity[i])), branch[i]);
    }
    return;
  }
  int64_t i = 0;
  for (; i + kSigns<T> <= length; i += kSigns<T>) {
    add_relu_of_several(branch + i, identity + i, signs + i / 8);
  }
  for (; i < length; i += 8) {
    T results[8] = {};
    const int64_t count = length - i < 8 ? length - i : 8;
    for (int64_t j = 0; j < count; ++j) {
      narrow(relu(widen(branch[i + j]) + widen(identity[i + j])), branch[i + j]);
      results[j] = branch[i + j];
    }
    signs[i / 8] = signs_of(results);
  }
}

template <class T>
TIN_INLINE void join_row(const JoinArgs<T>& args, int64_t row) {
  const int64_t first = row * args.channels, rest = first + args.folded;
  uint8_t* signs = args.signs ? args.signs + first / 8 : nullptr;
  if (args.folded > 0) {
    add_relu(args.branch + first, args.fold + row * args.folded, signs, args.folded);
  }
  add_relu(
      args.branch + rest, args.identity + rest, signs ? signs + args.folded / 8 : nullptr, args.channels - args.folded);
}

template <class T>
void join(const JoinArgs<T>& args, int64_t begin, int64_t end) {
  if (!args.fold) {
    const int64_t first = begin * kJoinBlock, last = end * kJoinBlock < args.count ? end * kJoinBlock : args.count;
    uint8_t* signs = args.signs ? args.signs + first / 8 : nullptr;
    return add_relu(args.branch + first, args.identity + first, signs, last - first);
  }
  for (int64_t row = begin; row < end; ++row) {
    join_row(args, row);
  }
}

template <class T>
void backward(const JoinBackwardArgs<T>& args, int64_t begin, int64_t end) {
  const int64_t first = begin * kJoinBlock, last = end * kJoinBlock < args.count ? end * kJoinBlock : args.count;
  int64_t i = first;
  for (; i + kSigns<T> <= last; i += kSigns<T>) {
    pass_several(args.out + i, args.grad + i, args.signs + i / 8);
  }
  for (; i < last; ++i) {
    args.out[i] = args.signs[i / 8] >> i % 8 & 1 ? args.grad[i] : T{};
  }
}

template <class T>
void join_pooled(const JoinArgs<T>& args, const PoolArgs<T>& pool, int64_t begin, int64_t end) {
  pooled_rows(args.branch, args.channels, pool, begin, end, [&](int64_t row) { join_row(args, row); });
}

template <class T>
void means(const PoolArgs<T>& pool, int64_t begin, int64_t end) {
  const int64_t blocks = pool_blocks(pool);
  for (int64_t frame = begin; frame < end; ++frame) {
    Acc<T>* __restrict__ means = pool.means + frame * pool.pooled;
    for (int64_t c = 0; c < pool.pooled; ++c) {
      means[c] = 0;
    }
    for (int64_t block = 0; block < blocks; ++block) {
      const Acc<T>* __restrict__ sums = pool.sums + (frame * blocks + block) * pool.pooled;
      for (int64_t c = 0; c < pool.pooled; ++c) {
        means[c] += sums[c];
      }
    }
    for (int64_t c = 0; c < pool.pooled; ++c) {
      means[c] /= static_cast<Acc<T>>(pool.pixels);
    }
  }
}

template <class T>
constexpr JoinKernels<T> kernels = {join<T>, backward<T>, join_pooled<T>, means<T>};

} // namespace

TIN_DEFINE_LEVEL(JoinTable, join, kernels);

} // namespace tin
