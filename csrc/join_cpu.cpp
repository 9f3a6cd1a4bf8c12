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

// x = relu(scale * x + shift)
template <class T>
void norm_relu(const NormJoinArgs<T>& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    T* __restrict__ x = args.branch + row * (args.inner == 1 ? args.channels : args.inner);
    if (args.inner == 1) {
      const Acc<T>* __restrict__ scale = args.scale;
      const Acc<T>* __restrict__ shift = args.shift;
      for (int64_t i = 0; i < args.channels; ++i) {
        narrow(relu(widen(x[i]) * scale[i] + shift[i]), x[i]);
      }
      continue;
    }
    const Acc<T> scale = args.scale[row % args.channels], shift = args.shift[row % args.channels];
    for (int64_t i = 0; i < args.inner; ++i) {
      narrow(relu(widen(x[i]) * scale + shift), x[i]);
    }
  }
}

// branch = relu(scale * branch + shift + identity)
template <class T>
TIN_INLINE void norm_add_relu(
    T* branch, const T* identity, const Acc<T>* scale, const Acc<T>* shift, int64_t length) {
#pragma GCC ivdep
  for (int64_t i = 0; i < length; ++i) {
    narrow(relu(widen(branch[i]) * scale[i] + shift[i] + widen(identity[i])), branch[i]);
  }
}

template <class T>
TIN_INLINE void norm_join_row(const NormJoinArgs<T>& args, int64_t row) {
  T* branch = args.branch + row * args.channels;
  const int64_t folded = args.folded;
  if (folded > 0) {
    norm_add_relu(branch, args.fold + row * folded, args.scale, args.shift, folded);
  }
  norm_add_relu(
      branch + folded, args.identity + row * args.channels + folded, args.scale + folded, args.shift + folded,
      args.channels - folded);
}

template <class T>
void norm_join(const NormJoinArgs<T>& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    if (args.inner == 1) {
      norm_join_row(args, row);
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

// Joins the rows of items, each by join_one(row), and sums what is stored while it is in the first-level cache.
template <class T, class JoinOne>
TIN_INLINE void pooled_rows(
    const T* branch, int64_t channels, const PoolArgs<T>& pool, int64_t begin, int64_t end, const JoinOne& join_one) {
  const int64_t blocks = pool_blocks(pool);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t frame = item / blocks, first = item % blocks * kPoolRows;
    const int64_t last = first + kPoolRows < pool.pixels ? first + kPoolRows : pool.pixels;
    Acc<T>* __restrict__ sums = pool.sums + item * pool.pooled;
    for (int64_t c = 0; c < pool.pooled; ++c) {
      sums[c] = 0;
    }
    const int64_t end_row = frame * pool.pixels + last;
    int64_t row = frame * pool.pixels + first;
    for (; row + 4 <= end_row; row += 4) { // rows a turn: sums are loaded and stored a quarter as often, and added in the same order
      for (int64_t j = 0; j < 4; ++j) {
        join_one(row + j);
      }
      const T* __restrict__ joined = branch + row * channels;
      for (int64_t c = 0; c < pool.pooled; ++c) {
        const Acc<T> sum = sums[c] + widen(joined[c]) + widen(joined[channels + c]);
        sums[c] = sum + widen(joined[2 * channels + c]) + widen(joined[3 * channels + c]);
      }
    }
    for (; row < end_row; ++row) {
      join_one(row);
      const T* __restrict__ joined = branch + row * channels;
      for (int64_t c = 0; c < pool.pooled; ++c) {
        sums[c] += widen(joined[c]);
      }
    }
  }
}

template <class T>
void join_pooled(const JoinArgs<T>& args, const PoolArgs<T>& pool, int64_t begin, int64_t end) {
  pooled_rows(args.branch, args.channels, pool, begin, end, [&](int64_t row) { join_row(args, row); });
}

template <class T>
void norm_join_pooled(const NormJoinArgs<T>& args, const PoolArgs<T>& pool, int64_t begin, int64_t end) {
  pooled_rows(args.branch, args.channels, pool, begin, end, [&](int64_t row) { norm_join_row(args, row); });
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
constexpr JoinKernels<T> kernels = {join<T>, backward<T>, norm_join<T>, norm_relu<T>, join_pooled<T>, norm_join_pooled<T>, means<T>};

} // namespace

TIN_DEFINE_LEVEL(JoinTable, join, kernels);

} // namespace tin
