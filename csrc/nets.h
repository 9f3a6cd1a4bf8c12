// TIN's two small networks (arXiv 2001.06499, section 3.2), from the pooled channels of a clip to the offsets and weights of
// its four groups, and back: what a block of threads does for a clip, the same on a GPU and, as a block of one, on a CPU.
//
//   z[t, j] = bias_j + sum over f, d of kernel_j[f, d] * pooled[t + d - 1, f]     j = 0: offset net, 1 and 2: gain net
//   hidden  = relu(fc1 z[:, 0])     offset = 4 * (sigmoid(fc2 hidden) - 0.5)     gain = 2 * sigmoid(z[:, 1:])
//   offsets (o0, o1, -o0, -o1), weights (g0, g1, g0, g1)
//
// A step's threads must all be done before the next step begins. Sums have one order: no atomics.
#pragma once

#include <cmath>

#include "real.h"

namespace tin {

template <class A>
struct NetWeights {
  const A* offset_kernel; // (1, F, 3)
  const A* offset_bias; // (1,)
  const A* gain_kernel; // (2, F, 3)
  const A* gain_bias; // (2,)
  const A* fc1; // (T, T)
  const A* fc1_bias; // (T,)
  const A* fc2; // (2, T)
  const A* fc2_bias; // (2,)
};

template <class A>
struct NetGrads {
  A* offset_kernel;
  A* offset_bias;
  A* gain_kernel;
  A* gain_bias;
  A* fc1;
  A* fc1_bias;
  A* fc2;
  A* fc2_bias;
};

template <class A>
struct NetsArgs {
  int64_t clips, segments, fold; // N, T, F
  const A* pooled; // (N, T, F)
  NetWeights<A> weights;
  A* offset; // (N, 4)
  A* weight; // (N, T, 4)
  A* state; // (N, T, 2): z[:, 0] and hidden, for the backward pass
};

template <class A>
struct NetsBackwardArgs {
  int64_t clips, segments, fold;
  const A* pooled;
  NetWeights<A> weights;
  const A* offset;
  const A* weight;
  const A* state;
  const A* grad_offset; // (N, 4)
  const A* grad_weight; // (N, T, 4)
  A* grad_pooled; // (N, T, F)
  A* flows; // scratch (N, T, 4): gradients of z, then of fc1's sum
  A* ends; // scratch (N, 2): gradients of fc2's sums
  NetGrads<A> grads;
};

constexpr int kNetParts = 8; // partial sums of a value of z

template <class A>
TIN_INLINE A sigmoid(A value) {
  return A(1) / (A(1) + std::exp(-value));
}

template <class A>
TIN_INLINE const A* kernel_of(const NetWeights<A>& weights, int64_t fold, int64_t j) {
  return j == 0 ? weights.offset_kernel : weights.gain_kernel + (j - 1) * fold * 3;
}

// Forward, step 1 of 4: parts of the sums of z, into shared (T * 3, kNetParts).
template <class A>
TIN_INLINE void nets_parts(const NetsArgs<A>& args, int64_t n, int thread, int threads, A* shared) {
  const int64_t T = args.segments, F = args.fold;
  for (int64_t i = thread; i < T * 3 * kNetParts; i += threads) {
    const int64_t part = i % kNetParts, t = i / kNetParts / 3, j = i / kNetParts % 3;
    const A* kernel = kernel_of(args.weights, F, j);
    A total = 0;
    for (int64_t d = t == 0; d < 3 && t + d - 1 < T; ++d) {
      const A* pooled = args.pooled + (n * T + t + d - 1) * F;
      for (int64_t f = part; f < F; f += kNetParts) {
        total += kernel[f * 3 + d] * pooled[f];
      }
    }
    shared[i] = total;
  }
}

// Step 2: the sums; z[:, 0] to the state, gains to the weights.
template <class A>
TIN_INLINE void nets_gains(const NetsArgs<A>& args, int64_t n, int thread, int threads, const A* shared) {
  const int64_t T = args.segments;
  for (int64_t i = thread; i < T * 3; i += threads) {
    const int64_t t = i / 3, j = i % 3;
    A z = j == 0 ? args.weights.offset_bias[0] : args.weights.gain_bias[j - 1];
    for (int part = 0; part < kNetParts; ++part) {
      z += shared[i * kNetParts + part];
    }
    if (j == 0) {
      args.state[(n * T + t) * 2] = z;
    } else {
      A* weight = args.weight + (n * T + t) * 4 + (j - 1);
      weight[0] = weight[2] = A(2) * sigmoid(z);
    }
  }
}

// Step 3: the hidden layer.
template <class A>
TIN_INLINE void nets_hidden(const NetsArgs<A>& args, int64_t n, int thread, int threads) {
  const int64_t T = args.segments;
  A* state = args.state + n * T * 2;
  for (int64_t t = thread; t < T; t += threads) {
    A sum = args.weights.fc1_bias[t];
    for (int64_t s = 0; s < T; ++s) {
      sum += args.weights.fc1[t * T + s] * state[s * 2];
    }
    state[t * 2 + 1] = sum <= A(0) ? A(0) : sum;
  }
}

// Step 4: the offsets.
template <class A>
TIN_INLINE void nets_offsets(const NetsArgs<A>& args, int64_t n, int thread, int threads) {
  const int64_t T = args.segments;
  for (int64_t i = thread; i < 2; i += threads) {
    A sum = args.weights.fc2_bias[i];
    for (int64_t t = 0; t < T; ++t) {
      sum += args.weights.fc2[i * T + t] * args.state[(n * T + t) * 2 + 1];
    }
    const A offset = A(4) * (sigmoid(sum) - A(0.5));
    args.offset[n * 4 + i] = offset;
    args.offset[n * 4 + 2 + i] = -offset;
  }
}

// Backward of a clip, step 1 of 4: through the two sigmoids.
template <class A>
TIN_INLINE void nets_ends(const NetsBackwardArgs<A>& args, int64_t n, int thread, int threads) {
  const int64_t T = args.segments;
  for (int64_t i = thread; i < 2; i += threads) {
    const A s = args.offset[n * 4 + i] / A(4) + A(0.5);
    args.ends[n * 2 + i] = (args.grad_offset[n * 4 + i] - args.grad_offset[n * 4 + 2 + i]) * A(4) * s * (A(1) - s);
  }
  for (int64_t i = thread; i < T * 2; i += threads) {
    const int64_t at = (n * T + i / 2) * 4, j = i % 2;
    const A s = args.weight[at + j] / A(2);
    args.flows[at + 1 + j] = (args.grad_weight[at + j] + args.grad_weight[at + 2 + j]) * A(2) * s * (A(1) - s);
  }
}

// Step 2: through fc2 and the ReLU.
template <class A>
TIN_INLINE void nets_hidden_flow(const NetsBackwardArgs<A>& args, int64_t n, int thread, int threads) {
  const int64_t T = args.segments;
  for (int64_t t = thread; t < T; t += threads) {
    const A flow = args.ends[n * 2] * args.weights.fc2[t] + args.ends[n * 2 + 1] * args.weights.fc2[T + t];
    args.flows[(n * T + t) * 4 + 3] = args.state[(n * T + t) * 2 + 1] <= A(0) ? A(0) : flow;
  }
}

// Step 3: through fc1.
template <class A>
TIN_INLINE void nets_offset_flow(const NetsBackwardArgs<A>& args, int64_t n, int thread, int threads) {
  const int64_t T = args.segments;
  for (int64_t s = thread; s < T; s += threads) {
    A total = 0;
    for (int64_t t = 0; t < T; ++t) {
      total += args.weights.fc1[t * T + s] * args.flows[(n * T + t) * 4 + 3];
    }
    args.flows[(n * T + s) * 4] = total;
  }
}

// Step 4: through the convolutions, to the pooled channels.
template <class A>
TIN_INLINE void nets_pooled_flow(const NetsBackwardArgs<A>& args, int64_t n, int thread, int threads) {
  const int64_t T = args.segments, F = args.fold;
  for (int64_t f = thread; f < F; f += threads) {
    for (int64_t t = 0; t < T; ++t) {
      A total = 0;
      for (int64_t j = 0; j < 3; ++j) {
        const A* kernel = kernel_of(args.weights, F, j) + f * 3;
        for (int64_t d = 0; d < 3; ++d) { // frame t is read by frame t - d + 1
          const int64_t s = t - d + 1;
          if (s >= 0 && s < T) {
            total += kernel[d] * args.flows[(n * T + s) * 4 + j];
          }
        }
      }
      args.grad_pooled[(n * T + t) * F + f] = total;
    }
  }
}

// Gradients of the weights, over all clips, once every clip is done: items [0, F) are a channel of the three kernels,
// [F, F + T) a row of fc1 with its bias and a column of fc2, the last the remaining biases.
template <class A>
TIN_INLINE int64_t nets_items(const NetsBackwardArgs<A>& args) {
  return args.fold + args.segments + 1;
}

template <class A>
TIN_INLINE void nets_kernel_grads(const NetsBackwardArgs<A>& args, int64_t f) {
  const int64_t T = args.segments, F = args.fold;
  A totals[9] = {};
  for (int64_t n = 0; n < args.clips; ++n) {
    A before = 0, here = args.pooled[n * T * F + f];
    for (int64_t t = 0; t < T; ++t) {
      const A after = t + 1 < T ? args.pooled[(n * T + t + 1) * F + f] : A(0);
      const A* flow = args.flows + (n * T + t) * 4;
      for (int j = 0; j < 3; ++j) {
        totals[j * 3] += flow[j] * before;
        totals[j * 3 + 1] += flow[j] * here;
        totals[j * 3 + 2] += flow[j] * after;
      }
      before = here;
      here = after;
    }
  }
  for (int d = 0; d < 3; ++d) {
    args.grads.offset_kernel[f * 3 + d] = totals[d];
    args.grads.gain_kernel[f * 3 + d] = totals[3 + d];
    args.grads.gain_kernel[(F + f) * 3 + d] = totals[6 + d];
  }
}

template <class A>
TIN_INLINE void nets_layer_grads(const NetsBackwardArgs<A>& args, int64_t t) {
  const int64_t T = args.segments, frames = args.clips * T;
  for (int64_t s = 0; s < T; ++s) {
    A total = 0;
    for (int64_t frame = 0; frame < frames; frame += T) {
      total += args.flows[(frame + t) * 4 + 3] * args.state[(frame + s) * 2];
    }
    args.grads.fc1[t * T + s] = total;
  }
  A bias = 0, first = 0, second = 0;
  for (int64_t n = 0; n < args.clips; ++n) {
    const A hidden = args.state[(n * T + t) * 2 + 1];
    bias += args.flows[(n * T + t) * 4 + 3];
    first += args.ends[n * 2] * hidden;
    second += args.ends[n * 2 + 1] * hidden;
  }
  args.grads.fc1_bias[t] = bias;
  args.grads.fc2[t] = first;
  args.grads.fc2[T + t] = second;
}

template <class A>
TIN_INLINE void nets_weight_grads(const NetsBackwardArgs<A>& args, int64_t item) {
  const int64_t T = args.segments, F = args.fold;
  if (item < F) {
    return nets_kernel_grads(args, item);
  }
  if (item < F + T) {
    return nets_layer_grads(args, item - F);
  }
  A z[3] = {}, ends[2] = {};
  for (int64_t frame = 0; frame < args.clips * T; ++frame) {
    for (int j = 0; j < 3; ++j) {
      z[j] += args.flows[frame * 4 + j];
    }
  }
  for (int64_t n = 0; n < args.clips; ++n) {
    ends[0] += args.ends[n * 2];
    ends[1] += args.ends[n * 2 + 1];
  }
  args.grads.offset_bias[0] = z[0];
  args.grads.gain_bias[0] = z[1];
  args.grads.gain_bias[1] = z[2];
  args.grads.fc2_bias[0] = ends[0];
  args.grads.fc2_bias[1] = ends[1];
}

} // namespace tin
