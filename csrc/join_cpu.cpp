// The CPU kernels of the join. Compiled once for each instruction set, as interlace_cpu.cpp is, and under the same rules.
#include "join_cpu.h"
#include "signs_cpu.h"

namespace tin {
namespace {

// branch = relu(branch + identity), and eight elements' signs a byte unless there are to be none.
template <class T>
TIN_INLINE void add_relu(T* branch, const T* identity, uint8_t* signs, int64_t length) {
  if (!signs) {
    for (int64_t i = 0; i < length; ++i) {
      narrow(relu(widen(branch[i]) + widen(identity[i])), branch[i]);
    }
    return;
  }
  for (int64_t i = 0; i < length; i += 8) {
    Acc<T> results[8] = {};
    const int64_t count = length - i < 8 ? length - i : 8;
    for (int64_t j = 0; j < (count == 8 ? 8 : count); ++j) {
      T stored;
      narrow(relu(widen(branch[i + j]) + widen(identity[i + j])), stored);
      branch[i + j] = stored;
      results[j] = widen(stored);
    }
    signs[i / 8] = signs_of(results);
  }
}

template <class T>
void join(const JoinArgs<T>& args, int64_t begin, int64_t end) {
  if (!args.fold) {
    const int64_t first = begin * kJoinBlock, last = end * kJoinBlock < args.count ? end * kJoinBlock : args.count;
    uint8_t* signs = args.signs ? args.signs + first / 8 : nullptr;
    return add_relu(args.branch + first, args.identity + first, signs, last - first);
  }
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * args.channels, rest = first + args.folded;
    uint8_t* signs = args.signs ? args.signs + first / 8 : nullptr;
    add_relu(args.branch + first, args.fold + row * args.folded, signs, args.folded);
    add_relu(
        args.branch + rest, args.identity + rest, signs ? signs + args.folded / 8 : nullptr,
        args.channels - args.folded);
  }
}

template <class T>
void backward(const JoinBackwardArgs<T>& args, int64_t begin, int64_t end) {
  const int64_t first = begin * kJoinBlock, last = end * kJoinBlock < args.count ? end * kJoinBlock : args.count;
  int64_t i = first;
  for (; i + 8 <= last; i += 8) {
    pass_eight(args.out + i, args.grad + i, args.signs[i / 8]);
  }
  for (; i < last; ++i) {
    args.out[i] = args.signs[i / 8] >> i % 8 & 1 ? args.grad[i] : T{};
  }
}

// branch = relu(scale * branch + shift + identity)
template <class T>
TIN_INLINE void norm_add_relu(
    T* branch, const T* identity, const Acc<T>* scale, const Acc<T>* shift, int64_t length) {
  for (int64_t i = 0; i < length; ++i) {
    narrow(relu(widen(branch[i]) * scale[i] + shift[i] + widen(identity[i])), branch[i]);
  }
}

template <class T>
void norm_join(const NormJoinArgs<T>& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    if (args.inner == 1) {
      T* branch = args.branch + row * args.channels;
      const int64_t folded = args.fold ? args.folded : 0;
      norm_add_relu(branch, args.fold + row * folded, args.scale, args.shift, folded);
      norm_add_relu(
          branch + folded, args.identity + row * args.channels + folded, args.scale + folded, args.shift + folded,
          args.channels - folded);
      continue;
    }
    T* branch = args.branch + row * args.inner;
    const T* identity = args.identity + row * args.inner;
    const Acc<T> scale = args.scale[row % args.channels], shift = args.shift[row % args.channels];
    for (int64_t i = 0; i < args.inner; ++i) {
      narrow(relu(widen(branch[i]) * scale + shift + widen(identity[i])), branch[i]);
    }
  }
}

template <class T>
constexpr JoinKernels<T> kernels = {join<T>, backward<T>, norm_join<T>};

} // namespace

TIN_DEFINE_LEVEL(JoinTable, join, kernels);

} // namespace tin
