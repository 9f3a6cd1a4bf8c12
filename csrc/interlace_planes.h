// What a thread of the CUDA kernels for contiguous tensors does: its block owns a stretch of a frame that belongs to
// one group, or to none.
#pragma once

#include "interlace_grid.h"

namespace tin {

struct Stretch {
  int64_t frame; // of all N*T
  int64_t n, t;
  int64_t k; // group, -1 for none
  int64_t part; // of the group
  int64_t first, end; // elements of the frame
};

TIN_INLINE Stretch stretch_of(const Params& p, const Grid& grid, int64_t block) {
  Stretch s;
  int64_t part = block % grid.parts;
  s.frame = block / grid.parts;
  s.n = s.frame / p.segments;
  s.t = s.frame % p.segments;
  s.k = part < p.groups * grid.group_parts ? part / grid.group_parts : -1;
  s.part = s.k < 0 ? part - p.groups * grid.group_parts : part % grid.group_parts;
  const int64_t from = s.k < 0 ? p.groups * p.run : s.k * p.run, to = s.k < 0 ? p.row : from + p.run;
  s.first = from + s.part * grid.stretch;
  s.end = s.first + grid.stretch < to ? s.first + grid.stretch : to;
  return s;
}

template <int V, bool SUMS, class T>
TIN_INLINE void planes_move(
    const Params& p, const T* __restrict__ in, const Beside<T>& more, T* __restrict__ out, const Stretch& s,
    const Source<Acc<T>>& source, int thread, Acc<T>* sums) {
  using A = Acc<T>;
  constexpr int ahead = SUMS && V == 8 ? 1 : 2;
  constexpr int64_t step = static_cast<int64_t>(kThreads) * V;
  const int64_t here = s.frame * p.frame;
  const T* __restrict__ x = SUMS ? more.x + s.frame * more.x_frame : nullptr;
  for (int64_t e = s.first + thread * V; e < s.end; e += ahead * step) {
    Pack<T, V> near[ahead], far[ahead], own[ahead];
    TIN_UNROLL for (int j = 0; j < ahead; ++j) {
      if (e + j * step < s.end) {
        near[j] = source.near >= 0 ? load<V>(in + source.near + e + j * step) : Pack<T, V>{};
        far[j] = source.far >= 0 ? load<V>(in + source.far + e + j * step) : Pack<T, V>{};
        if (SUMS) own[j] = load<V>(x + e + j * step);
      }
    }
    TIN_UNROLL for (int j = 0; j < ahead; ++j) {
      if (e + j * step < s.end) {
        Pack<T, V> moved;
        TIN_UNROLL for (int i = 0; i < V; ++i) {
          const A a = widen(near[j].v[i]), b = widen(far[j].v[i]);
          narrow(blend(source, a, b), moved.v[i]);
          if (SUMS) {
            const A value = widen(own[j].v[i]);
            sums[0] += a * value;
            sums[1] += b * value;
          }
        }
        if (!out) continue;
        if (more.passed) add_pack(moved, load<V>(more.passed + here + e + j * step));
        store<V>(out + here + e + j * step, moved);
      }
    }
  }
}

template <int V, class T>
TIN_INLINE void planes_forward(
    const Params& p, const Grid& grid, const ForwardArgs<T>& args, int64_t block, int thread) {
  const Stretch s = stretch_of(p, grid, block);
  const auto source = s.k < 0
      ? untouched<Acc<T>>(p, s.frame)
      : source_of(p, forward_taps(p, args.offset, args.weight, s.n, s.t, s.k), s.n, false);
  planes_move<V, false, T>(p, args.x, Beside<T>{}, args.out, s, source, thread, nullptr);
}

// First of three steps, as columns_backward; `shared` has kThreads * 2 places.
template <int V, bool SUMS, class T>
TIN_INLINE void planes_backward(
    const Params& p, const Grid& grid, const BackwardArgs<T>& args, int64_t block, int thread, Acc<T>* shared) {
  const Stretch s = stretch_of(p, grid, block);
  Acc<T> sums[2] = {};
  if (s.k >= 0) {
    const auto source = source_of(p, backward_taps(p, args.offset, args.weight, s.n, s.t, s.k), s.n, SUMS);
    planes_move<V, SUMS, T>(p, args.grad, beside(args), args.grad_x, s, source, thread, sums);
  } else if (args.grad_x) {
    planes_move<V, false, T>(
        p, args.grad, beside(args), args.grad_x, s, untouched<Acc<T>>(p, s.frame), thread, nullptr);
  }
  if (SUMS) {
    shared[thread] = sums[0];
    shared[kThreads + thread] = sums[1];
  }
}

// Second step: 2 * 16 threads add 16 places each.
template <class T>
TIN_INLINE void planes_sum_sixteenths(int thread, Acc<T>* shared) {
  if (thread < 32) {
    Acc<T>* place = shared + thread / 16 * kThreads + thread % 16;
    for (int i = 16; i < kThreads; i += 16) {
      *place += place[i];
    }
  }
}

// Third step, into args.partials.
template <class T>
TIN_INLINE void planes_sum(
    const Params& p, const Grid& grid, const BackwardArgs<T>& args, int64_t block, int thread, const Acc<T>* shared) {
  const Stretch s = stretch_of(p, grid, block);
  if (s.k >= 0 && thread < 2) {
    Acc<T> total = 0;
    for (int i = 0; i < 16; ++i) {
      total += shared[thread * kThreads + i];
    }
    args.partials[((s.frame * grid.group_parts + s.part) * p.groups + s.k) * 2 + thread] = total;
  }
}

} // namespace tin
