// What a thread of the join's CUDA kernels does: eight elements at a time, a byte of signs, in strides of the whole grid. Plain
// functions of the thread's number, so that a test walks them on the CPU.
#pragma once

#include "interlace_grid.h"
#include "join.h"

namespace tin {

constexpr int64_t kEight = 8;

TIN_INLINE int64_t join_eights(int64_t count) {
  return divide_up(count, kEight);
}

// `wide`: every pointer is a multiple of 16 bytes, and eight elements are whole accesses.
template <bool WIDE, class T>
TIN_INLINE void load_eight(const T* from, int64_t at, int64_t count, T* values) {
  if (WIDE && at + kEight <= count) {
    constexpr int w = wide<T>;
    constexpr int packs = w > 8 ? 1 : 8 / w, n = w > 8 ? 8 : w;
    TIN_UNROLL for (int q = 0; q < packs; ++q) {
      const Pack<T, n> pack = load<n>(from + at + q * n);
      TIN_UNROLL for (int i = 0; i < n; ++i) values[q * n + i] = pack.v[i];
    }
    return;
  }
  TIN_UNROLL for (int i = 0; i < kEight; ++i) values[i] = at + i < count ? from[at + i] : T{};
}

template <bool WIDE, class T>
TIN_INLINE void store_eight(T* to, int64_t at, int64_t count, const T* values) {
  if (WIDE && at + kEight <= count) {
    constexpr int w = wide<T>;
    constexpr int packs = w > 8 ? 1 : 8 / w, n = w > 8 ? 8 : w;
    TIN_UNROLL for (int q = 0; q < packs; ++q) {
      Pack<T, n> pack;
      TIN_UNROLL for (int i = 0; i < n; ++i) pack.v[i] = values[q * n + i];
      store<n>(to + at + q * n, pack);
    }
    return;
  }
  TIN_UNROLL for (int i = 0; i < kEight; ++i) {
    if (at + i < count) to[at + i] = values[i];
  }
}

template <bool WIDE, class T>
TIN_INLINE void join_thread(const JoinArgs<T>& args, int64_t thread, int64_t threads) {
  for (int64_t e = thread; e < join_eights(args.count); e += threads) {
    T branch[kEight], identity[kEight];
    load_eight<WIDE>(args.branch, e * kEight, args.count, branch);
    load_eight<WIDE>(args.identity, e * kEight, args.count, identity);
    unsigned signs = 0;
    TIN_UNROLL for (int i = 0; i < kEight; ++i) {
      narrow(relu(widen(branch[i]) + widen(identity[i])), branch[i]);
      signs |= static_cast<unsigned>(passes(widen(branch[i]))) << i;
    }
    store_eight<WIDE>(args.branch, e * kEight, args.count, branch);
    if (args.signs) args.signs[e] = static_cast<uint8_t>(signs);
  }
}

template <bool WIDE, class T>
TIN_INLINE void join_backward_thread(const JoinBackwardArgs<T>& args, int64_t thread, int64_t threads) {
  for (int64_t e = thread; e < join_eights(args.count); e += threads) {
    T grad[kEight];
    load_eight<WIDE>(args.grad, e * kEight, args.count, grad);
    const unsigned signs = args.signs[e];
    TIN_UNROLL for (int i = 0; i < kEight; ++i) {
      if (!(signs >> i & 1)) grad[i] = T{};
    }
    store_eight<WIDE>(args.out, e * kEight, args.count, grad);
  }
}

// In place. The norm's scale and shift are made from its four vectors as they are met.
template <bool WIDE, class T>
TIN_INLINE void norm_join_thread(
    const NormJoinArgs<T>& args, const Norm<T>& norm, Acc<T> eps, int64_t thread, int64_t threads) {
  using A = Acc<T>;
  for (int64_t e = thread; e < join_eights(args.count); e += threads) {
    T x[kEight], identity[kEight];
    load_eight<WIDE>(args.out, e * kEight, args.count, x);
    load_eight<WIDE>(args.identity, e * kEight, args.count, identity);
    TIN_UNROLL for (int i = 0; i < kEight; ++i) {
      const int64_t c = (e * kEight + i) / args.inner % args.channels;
      const A scale = norm.weight[c] / std::sqrt(norm.var[c] + eps);
      narrow(relu(widen(x[i]) * scale + (norm.bias[c] - norm.mean[c] * scale) + widen(identity[i])), x[i]);
    }
    store_eight<WIDE>(args.out, e * kEight, args.count, x);
  }
}

} // namespace tin
