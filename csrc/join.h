// relu(branch + identity), where a residual block ends: its arguments, and the arithmetic of one element, for the CPU and
// CUDA kernels alike.
//
// For the backward pass one bit an element is kept, bit i % 8 of byte i / 8: whether the gradient passes.
#pragma once

#include "real.h"

namespace tin {

template <class T>
struct JoinArgs {
  T* branch; // and the result
  const T* identity;
  uint8_t* signs; // null where no gradient is wanted
  int64_t count; // elements
  // The first `folded` of every `channels` elements of the identity are read here instead, dense; null for none: where
  // temporal_interlace_ has overwritten them. Both are multiples of 8 then.
  const T* fold;
  int64_t folded, channels;
};

// relu(norm(x) + identity). Element i has channel i / inner % channels.
template <class T>
struct NormJoinArgs {
  T* out;
  const T* identity; // on a CPU null: nothing is added
  const Acc<T>* scale; // (channels,) of norm(x) = scale * x + shift
  const Acc<T>* shift;
  const T* fold; // as in JoinArgs; inner is 1 then
  int64_t folded;
  int64_t channels, inner, count;
  // CPU alone:
  const T* x; // may be `out`, as it is on CUDA
  uint8_t* signs; // as in JoinArgs
};

template <class T>
struct JoinBackwardArgs {
  const T* grad;
  const uint8_t* signs;
  T* out;
  int64_t count;
};

// A batch norm in evaluation mode, (channels,) each.
template <class T>
struct Norm {
  const Acc<T>* mean;
  const Acc<T>* var;
  const Acc<T>* weight;
  const Acc<T>* bias;
};

template <class A>
TIN_INLINE A relu(A value) {
  return value <= A(0) ? A(0) : value; // NaN stays
}

// Of a result as it is stored: a sum that rounds to zero passes no gradient.
template <class A>
TIN_INLINE bool passes(A result) {
  return !(result <= A(0));
}

} // namespace tin
