// The op's shape and index arithmetic, used by the CPU and the CUDA kernels alike, so that tests of one cover both.
//
// All frames of a tensor are dense and laid out alike, so an output element is made from elements at the same place of
// other frames. Within a frame only the group matters, and in both memory formats a frame is a number of equal rows
// that begin with the groups' runs:
//
//   channels_last   rows = H*W  row = C      run = g        | g | g | g | g | untouched channels |   a pixel
//   contiguous      rows = 1    row = C*H*W  run = g*H*W    | g planes | ... | untouched planes  |   the whole frame
#pragma once

#include <cmath>

#include "real.h"

namespace tin {

struct Params {
  int64_t clips; // N
  int64_t segments; // T, frames a clip
  int64_t groups; // G
  int64_t rows; // rows a frame
  int64_t row; // elements from a row to the next
  int64_t run; // elements a group has in a row
  int64_t frame; // elements from a frame to the next, rows * row
};

// What a kernel reads and writes. Offset (N, G) and weight (N, T, G) are contiguous and of type Acc<T>.
template <class T>
struct ForwardArgs {
  const T* x;
  const Acc<T>* offset;
  const Acc<T>* weight;
  T* out;
};

template <class T>
struct BackwardArgs {
  const T* grad;
  const T* passed; // added to grad_x; null for nothing: the gradient of x as another reader has it
  const T* x; // its groups, at least; null unless the gradients of offset or weight are needed
  int64_t x_row; // elements of x from a row to the next; less than p.row where x holds the groups alone
  int64_t x_frame; // and from a frame to the next
  const Acc<T>* offset;
  const Acc<T>* weight;
  T* grad_x; // null where not needed
  Acc<T>* partials; // (N*T, chunks, G, 2): sums over a part of frame s of grad[s+o]*x[s] and grad[s+o+1]*x[s]
};

// The end of the backward pass: partial sums to gradients. Each is null where not needed.
template <class T>
struct FinishArgs {
  const Acc<T>* offset;
  const Acc<T>* weight;
  const Acc<T>* partials;
  int64_t chunks;
  Acc<T>* totals; // scratch (N, G, T, 2)
  Acc<T>* grad_offset; // (N, G)
  Acc<T>* grad_weight; // (N, T, G)
};

template <class A>
struct Shift {
  int64_t whole; // o
  A fraction; // a in [0, 1], NaN for a NaN offset; 1 is what rounding makes of a tiny negative offset
};

template <class A>
TIN_INLINE Shift<A> shift_of(A offset, int64_t segments) {
  const A limit = static_cast<A>(segments + 1); // every tap of an offset this large is outside the clip
  offset = offset > limit ? limit : offset;
  offset = offset < -limit ? -limit : offset;
  const A whole = std::floor(offset);
  return {whole == whole ? static_cast<int64_t>(whole) : 0, offset - whole};
}

// One of the two frames that make an output frame.
template <class A>
struct Tap {
  int64_t frame; // in the clip, -1 outside
  bool used; // inside and with a coefficient that is not zero: else it is not read, and its Inf and NaN stay there
  A scale;
};

template <class A>
struct Taps {
  Tap<A> near;
  Tap<A> far;
  A fill; // what an output frame with no tap used holds
};

template <class A>
TIN_INLINE Tap<A> tap_of(int64_t frame, int64_t segments, A coefficient) {
  const bool inside = frame >= 0 && frame < segments;
  return {inside ? frame : -1, inside && coefficient != A(0), coefficient};
}

// Frames of x that make frame t of the output, for clip n and group k.
template <class A>
TIN_INLINE Taps<A> forward_taps(const Params& p, const A* offset, const A* weight, int64_t n, int64_t t, int64_t k) {
  const Shift<A> shift = shift_of(offset[n * p.groups + k], p.segments);
  const A scale = weight[(n * p.segments + t) * p.groups + k];
  Taps<A> taps;
  taps.near = tap_of(t - shift.whole, p.segments, A(1) - shift.fraction);
  taps.far = tap_of(t - shift.whole - 1, p.segments, shift.fraction);
  taps.near.scale *= scale;
  taps.far.scale *= scale;
  taps.fill = scale * A(0); // a NaN or infinite weight shows even where it scales nothing
  return taps;
}

// The transposed map: frames of the output's gradient that make frame s of the input's.
template <class A>
TIN_INLINE Taps<A> backward_taps(const Params& p, const A* offset, const A* weight, int64_t n, int64_t s, int64_t k) {
  const Shift<A> shift = shift_of(offset[n * p.groups + k], p.segments);
  Taps<A> taps;
  taps.near = tap_of(s + shift.whole, p.segments, A(1) - shift.fraction);
  taps.far = tap_of(s + shift.whole + 1, p.segments, shift.fraction);
  if (taps.near.frame >= 0) {
    taps.near.scale *= weight[(n * p.segments + taps.near.frame) * p.groups + k];
  }
  if (taps.far.frame >= 0) {
    taps.far.scale *= weight[(n * p.segments + taps.far.frame) * p.groups + k];
  }
  taps.fill = A(0);
  return taps;
}

// Group-wise sums of the whole frames of clip n, group k, from the sums of their parts, always in the same order.
// `thread` of `threads` takes its share; all must be done before finish_gradients.
template <class T>
TIN_INLINE void finish_totals(
    const Params& p, const FinishArgs<T>& args, int64_t n, int64_t k, int64_t thread, int64_t threads) {
  for (int64_t i = thread; i < 2 * p.segments; i += threads) {
    const int64_t frame = n * p.segments + i / 2;
    const Acc<T>* part = args.partials + frame * args.chunks * p.groups * 2 + k * 2 + i % 2;
    Acc<T> total = 0;
#if defined(__CUDACC__)
#pragma unroll 4
#endif
    for (int64_t chunk = 0; chunk < args.chunks; ++chunk) {
      total += part[chunk * p.groups * 2];
    }
    args.totals[(n * p.groups + k) * p.segments * 2 + i] = total;
  }
}

// Gradients of offset[n, k] and weight[n, :, k].
template <class T>
TIN_INLINE void finish_gradients(
    const Params& p, const FinishArgs<T>& args, int64_t n, int64_t k, int64_t thread, int64_t threads) {
  using A = Acc<T>;
  const Shift<A> shift = shift_of(args.offset[n * p.groups + k], p.segments);
  const A* totals = args.totals + (n * p.groups + k) * p.segments * 2;
  // sum of grad[t]*x[t-o], and of grad[t]*x[t-o-1]
  const auto near_sum = [&](int64_t t) {
    const int64_t s = t - shift.whole;
    return s >= 0 && s < p.segments ? totals[s * 2] : A(0);
  };
  const auto far_sum = [&](int64_t t) {
    const int64_t s = t - shift.whole - 1;
    return s >= 0 && s < p.segments ? totals[s * 2 + 1] : A(0);
  };
  if (args.grad_weight) {
    for (int64_t t = thread; t < p.segments; t += threads) {
      const A near = A(1) - shift.fraction, far = shift.fraction;
      args.grad_weight[(n * p.segments + t) * p.groups + k] =
          (near != A(0) ? near * near_sum(t) : A(0)) + (far != A(0) ? far * far_sum(t) : A(0));
    }
  }
  if (args.grad_offset && thread == 0) {
    A total = 0;
    for (int64_t t = 0; t < p.segments; ++t) {
      total += args.weight[(n * p.segments + t) * p.groups + k] * (far_sum(t) - near_sum(t));
    }
    args.grad_offset[n * p.groups + k] = total;
  }
}

} // namespace tin
