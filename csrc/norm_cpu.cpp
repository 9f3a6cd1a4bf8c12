// The CPU kernels of batch norms. Compiled once for each instruction set, as interlace_cpu.cpp is, and under the same rules.
#include "norm_cpu.h"
#include "signs_cpu.h"

namespace tin {
namespace {

// out = relu(scale * x + shift + identity), of several channels of a row
template <bool ADD, class T>
TIN_INLINE void norm_relu(
    T* out, const T* x, const T* identity, const Acc<T>* scale, const Acc<T>* shift, uint8_t* signs, int64_t length) {
#pragma GCC ivdep
  for (int64_t i = 0; i < length; ++i) {
    const Acc<T> normed = widen(x[i]) * scale[i] + shift[i];
    narrow(relu(ADD ? normed + widen(identity[i]) : normed), out[i]);
  }
  if (signs) {
    for (int64_t i = 0; i < length; i += 8) {
      signs[i / 8] = signs_of(out + i);
    }
  }
}

template <class T>
TIN_INLINE void norm_join_row(const NormJoinArgs<T>& args, int64_t row) {
  const int64_t first = row * args.channels, folded = args.folded, rest = first + folded;
  uint8_t* signs = args.signs ? args.signs + first / 8 : nullptr;
  if (!args.identity) {
    return norm_relu<false>(args.out + first, args.x + first, args.x, args.scale, args.shift, signs, args.channels);
  }
  if (folded > 0) {
    const T* fold = args.fold + row * folded;
    norm_relu<true>(args.out + first, args.x + first, fold, args.scale, args.shift, signs, folded);
  }
  norm_relu<true>(
      args.out + rest, args.x + rest, args.identity + rest, args.scale + folded, args.shift + folded,
      signs ? signs + folded / 8 : nullptr, args.channels - folded);
}

template <class T>
TIN_INLINE void norm_join_plane(const NormJoinArgs<T>& args, int64_t plane) {
  const T* x = args.x + plane * args.inner;
  const T* identity = args.identity ? args.identity + plane * args.inner : nullptr;
  T* out = args.out + plane * args.inner;
  const Acc<T> scale = args.scale[plane % args.channels], shift = args.shift[plane % args.channels];
#pragma GCC ivdep
  for (int64_t i = 0; i < args.inner; ++i) {
    const Acc<T> normed = widen(x[i]) * scale + shift;
    narrow(relu(identity ? normed + widen(identity[i]) : normed), out[i]);
  }
}

template <class T>
void norm_join(const NormJoinArgs<T>& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (args.inner == 1) {
      norm_join_row(args, i);
    } else {
      norm_join_plane(args, i);
    }
  }
}

template <class T>
void norm_join_pooled(const NormJoinArgs<T>& args, const PoolArgs<T>& pool, int64_t begin, int64_t end) {
  pooled_rows(args.out, args.channels, pool, begin, end, [&](int64_t row) { norm_join_row(args, row); });
}

// The row after an item's last.
template <class Args>
TIN_INLINE int64_t end_of(const Args& args, int64_t item) {
  const int64_t end = (item + 1) * args.block;
  return end < args.rows ? end : args.rows;
}

template <class T>
void stats(const StatsArgs<T>& args, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t first = item * args.block, last = end_of(args, item);
    A* __restrict__ means = args.means + item * args.channels;
    A* __restrict__ squares = args.squares + item * args.channels;
    for (int64_t c = 0; c < args.channels; ++c) {
      means[c] = squares[c] = 0;
    }
    const T* __restrict__ start = args.x + first * args.channels; // sums of distances from it lose no digits far from zero
    for (int64_t row = first + 1; row < last; ++row) {
      const T* __restrict__ x = args.x + row * args.channels;
      for (int64_t c = 0; c < args.channels; ++c) {
        means[c] += widen(x[c]) - widen(start[c]);
      }
    }
    for (int64_t c = 0; c < args.channels; ++c) {
      means[c] = widen(start[c]) + means[c] / static_cast<A>(last - first);
    }
    for (int64_t row = first; row < last; ++row) {
      const T* __restrict__ x = args.x + row * args.channels;
      for (int64_t c = 0; c < args.channels; ++c) {
        const A distance = widen(x[c]) - means[c];
        squares[c] += distance * distance;
      }
    }
  }
}

// Those of N elements of grad that pass, which are in `kept` where some may not.
template <int N, class T>
TIN_INLINE const T* passing(const NormBackwardArgs<T>& args, int64_t at, T* kept) {
  const T* grad = args.grad + at;
  if (!args.signs) {
    return grad;
  }
  constexpr int several = kSigns<T> < N ? kSigns<T> : N;
  for (int i = 0; i < N; i += several) {
    if constexpr (several == kSigns<T>) {
      pass_several(kept + i, grad + i, args.signs + (at + i) / 8);
    } else {
      pass_eight(kept + i, grad + i, args.signs[(at + i) / 8]);
    }
  }
  return kept;
}

// part(channel, at, std::integral_constant<int, N>): N channels from `channel` of a row, whose first element is `at`.
template <class Part>
TIN_INLINE void in_parts(int64_t channels, int64_t row, const Part& part) {
  int64_t c = 0;
  for (; c + 64 <= channels; c += 64) {
    part(c, row * channels + c, std::integral_constant<int, 64>());
  }
  for (; c < channels; c += 8) {
    part(c, row * channels + c, std::integral_constant<int, 8>());
  }
}

template <class T>
void sums(const NormBackwardArgs<T>& args, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t first = item * args.block, last = end_of(args, item);
    A* totals = args.sums + item * 2 * args.channels;
    for (int64_t c = 0; c < 2 * args.channels; ++c) {
      totals[c] = 0;
    }
    for (int64_t row = first; row < last; ++row) {
      in_parts(args.channels, row, [&](int64_t c, int64_t at, auto count) {
        constexpr int N = decltype(count)::value;
        alignas(64) T kept[N];
        const T* grad = passing<N>(args, at, kept);
        const T* x = args.x + at;
        const A* mean = args.mean + c;
        A* __restrict__ total = totals + c;
        A* __restrict__ dot = totals + args.channels + c;
        for (int i = 0; i < N; ++i) {
          const A flow = widen(grad[i]);
          total[i] += flow;
          dot[i] += flow * (widen(x[i]) - mean[i]);
        }
      });
    }
  }
}

template <class T>
void backward(const NormBackwardArgs<T>& args, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t row = begin; row < end; ++row) {
    in_parts(args.channels, row, [&](int64_t c, int64_t at, auto count) {
      constexpr int N = decltype(count)::value;
      alignas(64) T kept[N];
      const T* grad = passing<N>(args, at, kept);
      const T* x = args.x + at;
      const A *mean = args.mean + c, *factor = args.factor + c, *level = args.level + c, *slope = args.slope + c;
      T* __restrict__ x_grad = args.x_grad + at;
      for (int i = 0; i < N; ++i) {
        narrow(factor[i] * (widen(grad[i]) - level[i] - slope[i] * (widen(x[i]) - mean[i])), x_grad[i]);
      }
    });
  }
}

template <class T>
constexpr NormKernels<T> kernels = {norm_join<T>, norm_join_pooled<T>, stats<T>, sums<T>, backward<T>};

} // namespace

TIN_DEFINE_LEVEL(NormTable, norm, kernels);

} // namespace tin
