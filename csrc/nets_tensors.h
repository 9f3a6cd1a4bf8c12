// From tensors to the arguments of TIN's small networks: checks and outputs, the same for CPU and CUDA.
#pragma once

#include <vector>

#include "nets.h"
#include "tensors.h"

namespace tin {

// The eight parameters in the order of NetWeights, with their shapes for T segments and F channels.
struct NetShapes {
  std::vector<int64_t> shapes[8];

  NetShapes(int64_t T, int64_t F) : shapes{{1, F, 3}, {1}, {2, F, 3}, {2}, {T, T}, {T}, {2, T}, {2}} {}
};

// Calls body(A()) for float32 and float64.
template <class Body>
auto with_wide_type(const Tensor& x, const Body& body) {
  if (x.scalar_type() == ScalarType::Double) {
    return body(double());
  }
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, "pooled must be float32 or float64");
  return body(float());
}

inline NetShapes check_nets(const Tensor& pooled, const std::vector<Tensor>& weights, int64_t segments) {
  STD_TORCH_CHECK(
      pooled.dim() == 2 && pooled.is_contiguous() && segments >= 1 && pooled.size(0) % segments == 0 &&
          pooled.size(1) >= 1,
      "pooled must be (N*T, F), contiguous, of whole clips of ", segments, " frames, got ", shape_text(pooled));
  const NetShapes expected(segments, pooled.size(1));
  STD_TORCH_CHECK(weights.size() == 8, "the networks have eight weights, got ", weights.size());
  for (int i = 0; i < 8; ++i) {
    const Tensor& weight = weights[i];
    bool fits = weight.dim() == static_cast<int64_t>(expected.shapes[i].size()) && weight.is_contiguous() &&
        weight.scalar_type() == pooled.scalar_type() && weight.device() == pooled.device();
    for (int64_t d = 0; fits && d < weight.dim(); ++d) {
      fits = weight.size(d) == expected.shapes[i][d];
    }
    STD_TORCH_CHECK(fits, "weight ", i, " of the networks does not fit ", shape_text(pooled), ": ", shape_text(weight));
  }
  return expected;
}

template <class A>
NetWeights<A> weights_of(const std::vector<Tensor>& w) {
  return {data<A>(w[0]), data<A>(w[1]), data<A>(w[2]), data<A>(w[3]),
          data<A>(w[4]), data<A>(w[5]), data<A>(w[6]), data<A>(w[7])};
}

// run(NetsArgs<A>); returns offset (N, 4), weight (N, T, 4) and what the backward pass wants kept (N, T, 2).
template <class Run>
Tensors nets_with(const Tensor& pooled, const std::vector<Tensor>& weights, int64_t segments, const Run& run) {
  check_nets(pooled, weights, segments);
  const int64_t clips = pooled.size(0) / segments;
  const Tensor offset = torch::stable::new_empty(pooled, {clips, 4});
  const Tensor weight = torch::stable::new_empty(pooled, {clips, segments, 4});
  const Tensor state = torch::stable::new_empty(pooled, {clips, segments, 2});
  if (clips > 0) {
    with_wide_type(pooled, [&](auto type) {
      using A = decltype(type);
      run(NetsArgs<A>{
          clips, segments, pooled.size(1), data<A>(pooled), weights_of<A>(weights), mutable_data<A>(offset),
          mutable_data<A>(weight), mutable_data<A>(state)});
    });
  }
  return {offset, weight, state};
}

// run(NetsBackwardArgs<A>); returns the gradients of pooled and of the eight weights.
template <class Run>
std::vector<Tensor> nets_backward_with(
    const Tensor& pooled, const std::vector<Tensor>& weights, const Tensor& offset, const Tensor& weight,
    const Tensor& state, const Tensor& grad_offset, const Tensor& grad_weight, int64_t segments, const Run& run) {
  const NetShapes shapes = check_nets(pooled, weights, segments);
  const int64_t clips = pooled.size(0) / segments;
  const auto check = [&](const Tensor& x, int64_t size, const char* name) {
    STD_TORCH_CHECK(
        x.numel() == size && x.is_contiguous() && x.scalar_type() == pooled.scalar_type() &&
            x.device() == pooled.device(),
        name, " does not fit pooled ", shape_text(pooled), ": ", shape_text(x));
  };
  check(offset, clips * 4, "offset");
  check(grad_offset, clips * 4, "grad_offset");
  check(weight, clips * segments * 4, "weight");
  check(grad_weight, clips * segments * 4, "grad_weight");
  check(state, clips * segments * 2, "state");
  std::vector<Tensor> grads{torch::stable::new_empty(pooled, {pooled.size(0), pooled.size(1)})};
  for (const auto& shape : shapes.shapes) {
    grads.push_back(
        clips ? torch::stable::new_empty(pooled, shape) : torch::stable::new_zeros(pooled, shape));
  }
  if (clips == 0) {
    return grads;
  }
  const Tensor scratch = torch::stable::new_empty(pooled, {clips * segments * 4 + clips * 2});
  with_wide_type(pooled, [&](auto type) {
    using A = decltype(type);
    A* flows = mutable_data<A>(scratch);
    const auto grad = [&](int i) { return mutable_data<A>(grads[i + 1]); };
    run(NetsBackwardArgs<A>{
        clips, segments, pooled.size(1), data<A>(pooled), weights_of<A>(weights), data<A>(offset), data<A>(weight),
        data<A>(state), data<A>(grad_offset), data<A>(grad_weight), mutable_data<A>(grads[0]), flows,
        flows + clips * segments * 4,
        NetGrads<A>{grad(0), grad(1), grad(2), grad(3), grad(4), grad(5), grad(6), grad(7)}});
  });
  return grads;
}

} // namespace tin
