// From tensors to Params: the checks, the memory format and the outputs, the same for CPU and CUDA.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>

#include "interlace.h"

namespace tin {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::tuple<Tensor, Tensor, Tensor>;
using OptionalTensor = std::optional<Tensor>;

inline std::string shape_text(const Tensor& tensor) {
  std::string text = "(";
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    text += (d ? ", " : "") + std::to_string(tensor.size(d));
  }
  return text + ")";
}

inline bool is_channels_last(const Tensor& x) {
  int64_t expected = 1;
  for (const int d : {1, 3, 2, 0}) {
    if (x.size(d) != 1 && x.stride(d) != expected) {
      return false;
    }
    expected *= x.size(d);
  }
  return true;
}

// The format an input is brought to, if it is in neither: _memory_format of tin/ops.py states the same rule.
inline MemoryFormat memory_format(const Tensor& x) {
  return !x.is_contiguous() && (is_channels_last(x) || x.stride(1) == 1) ? MemoryFormat::ChannelsLast
                                                                         : MemoryFormat::Contiguous;
}

// Group size and shape, once everything is known to fit; _check of tin/ops.py refuses the same things.
inline Params checked_params(
    const Tensor& x, const Tensor& offset, const Tensor& weight, int64_t segments, std::optional<int64_t> group_size) {
  STD_TORCH_CHECK(x.dim() == 4, "x must have shape (N*T, C, H, W), got ", shape_text(x));
  STD_TORCH_CHECK(segments >= 1, "num_segments must be at least 1, got ", segments);
  STD_TORCH_CHECK(
      x.size(0) % segments == 0, "x must hold whole clips: its ", x.size(0),
      " frames are no multiple of num_segments = ", segments);
  const int64_t clips = x.size(0) / segments, channels = x.size(1), pixels = x.size(2) * x.size(3);
  STD_TORCH_CHECK(
      offset.dim() == 2 && offset.size(0) == clips && offset.size(1) >= 1, "offset must have shape (N, G) = (", clips,
      ", G), G at least 1, got ", shape_text(offset));
  const int64_t groups = offset.size(1);
  STD_TORCH_CHECK(
      weight.dim() == 3 && weight.size(0) == clips && weight.size(1) == segments && weight.size(2) == groups,
      "weight must have shape (N, T, G) = (", clips, ", ", segments, ", ", groups, "), got ", shape_text(weight));
  const int64_t size = group_size.value_or(channels / (4 * groups));
  STD_TORCH_CHECK(
      size >= 1 && size <= channels / groups, "group_size must be from 1 to C // G = ", channels / groups, " (", groups,
      " groups, ", channels, " channels), got ", size);
  STD_TORCH_CHECK(offset.scalar_type() == weight.scalar_type(), "offset and weight must have one dtype");
  const ScalarType wide = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(
      offset.scalar_type() == x.scalar_type() || offset.scalar_type() == wide,
      "offset and weight must have the dtype of x, or float32 when x is half");
  STD_TORCH_CHECK(
      x.device() == offset.device() && x.device() == weight.device(), "x, offset and weight must be on one device");
  Params p{};
  p.clips = clips;
  p.segments = segments;
  p.groups = groups;
  p.frame = channels * pixels;
  const bool rows_are_pixels = memory_format(x) == MemoryFormat::ChannelsLast;
  p.rows = rows_are_pixels ? pixels : 1;
  p.row = rows_are_pixels ? channels : p.frame;
  p.run = rows_are_pixels ? size : size * pixels;
  return p;
}

template <class T>
constexpr ScalarType accumulate_type = sizeof(Acc<T>) == sizeof(double) ? ScalarType::Double : ScalarType::Float;

// offset or weight as the kernels want it.
template <class T>
Tensor widened(const Tensor& tensor) {
  const Tensor wide =
      tensor.scalar_type() == accumulate_type<T> ? tensor : torch::stable::to(tensor, accumulate_type<T>);
  return torch::stable::contiguous(wide);
}

// A gradient in the dtype of what it is the gradient of.
inline Tensor narrowed(const Tensor& grad, const Tensor& like) {
  return grad.scalar_type() == like.scalar_type() ? grad : torch::stable::to(grad, like.scalar_type());
}

template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <class T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Calls body(T()) for the kernel type of x.
template <class Body>
auto with_type(const Tensor& x, const Body& body) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return body(float());
    case ScalarType::Double: return body(double());
    case ScalarType::Half: return body(Half());
    case ScalarType::BFloat16: return body(BFloat16());
    default: break;
  }
  STD_TORCH_CHECK(false, "x must be float32, float16, bfloat16 or float64");
  return body(float());
}

// Everything of the forward pass but the kernel: run(params, ForwardArgs<T>).
template <class Run>
Tensor forward_with(
    const Tensor& x_in, const Tensor& offset, const Tensor& weight, int64_t segments,
    std::optional<int64_t> group_size, const Run& run) {
  const Params p = checked_params(x_in, offset, weight, segments, group_size);
  const Tensor x = torch::stable::contiguous(x_in, memory_format(x_in));
  const Tensor out = torch::stable::empty_like(x);
  if (x.numel() > 0) {
    with_type(x, [&](auto type) {
      using T = decltype(type);
      const Tensor wide_offset = widened<T>(offset), wide_weight = widened<T>(weight);
      run(p, ForwardArgs<T>{data<T>(x), data<Acc<T>>(wide_offset), data<Acc<T>>(wide_weight), mutable_data<T>(out)});
    });
  }
  return out;
}

// Whether x is the input of the forward pass, or its groups alone, dense, which is all the sums read.
inline bool is_fold_of(const Tensor& x, const Tensor& grad, int64_t fold) {
  return x.dim() == 4 && x.size(1) == fold && x.size(0) == grad.size(0) && x.size(2) == grad.size(2) &&
      x.size(3) == grad.size(3);
}

// Everything of the backward pass but the kernels: chunks(params, BackwardArgs<T>) says in how many parts a frame's
// sums come, run(params, BackwardArgs<T>) fills grad_x and those parts, finish(params, FinishArgs<T>) adds them up.
template <class Chunks, class Run, class Finish>
Tensors backward_with(
    const Tensor& grad_in, const Tensor& x_in, const Tensor& offset, const Tensor& weight, int64_t segments,
    bool need_x, bool need_offset, bool need_weight, std::optional<int64_t> group_size,
    const std::optional<Tensor>& passed_in, const Chunks& chunks, const Run& run, const Finish& finish) {
  const Params whole = checked_params(grad_in, offset, weight, segments, group_size);
  const int64_t fold = whole.groups * (whole.rows == 1 ? whole.run / (grad_in.size(2) * grad_in.size(3)) : whole.run);
  const bool folded = is_fold_of(x_in, grad_in, fold);
  STD_TORCH_CHECK(
      folded || shape_text(grad_in) == shape_text(x_in), "grad must have the shape of x, ", shape_text(x_in),
      ", or x the first ", fold, " channels alone, got ", shape_text(grad_in));
  STD_TORCH_CHECK(
      grad_in.scalar_type() == x_in.scalar_type() && grad_in.device() == x_in.device(),
      "grad must have the dtype and the device of x");
  STD_TORCH_CHECK(
      !passed_in || (shape_text(*passed_in) == shape_text(grad_in) && passed_in->scalar_type() == x_in.scalar_type() &&
                     passed_in->device() == x_in.device()),
      "passed must have the shape, dtype and device of grad, ", shape_text(grad_in));
  const bool sums = need_offset || need_weight;
  const MemoryFormat format = memory_format(folded ? grad_in : x_in);
  const Tensor grad = torch::stable::contiguous(grad_in, format);
  const Tensor x = torch::stable::contiguous(x_in, format);
  const Tensor passed = passed_in ? torch::stable::contiguous(*passed_in, format) : grad;
  const Tensor grad_x = need_x ? torch::stable::empty_like(grad) : torch::stable::new_empty(x, {0});
  const Params p = checked_params(grad, offset, weight, segments, fold / whole.groups);
  if (grad.numel() == 0) {
    return {
        grad_x, need_offset ? torch::stable::new_zeros(offset, offset.sizes()) : torch::stable::new_empty(offset, {0}),
        need_weight ? torch::stable::new_zeros(weight, weight.sizes()) : torch::stable::new_empty(weight, {0})};
  }
  return with_type(x, [&](auto type) -> Tensors {
    using T = decltype(type);
    using A = Acc<T>;
    const Tensor wide_offset = widened<T>(offset), wide_weight = widened<T>(weight);
    const auto scratch = [&](int64_t size) { return torch::stable::new_empty(wide_offset, {size}); };
    BackwardArgs<T> args{};
    args.grad = data<T>(grad);
    args.passed = passed_in ? data<T>(passed) : nullptr;
    args.x = sums ? data<T>(x) : nullptr;
    args.x_row = folded && p.rows > 1 ? fold : p.row;
    args.x_frame = folded ? p.groups * p.run * p.rows : p.frame;
    args.offset = data<A>(wide_offset);
    args.weight = data<A>(wide_weight);
    args.grad_x = need_x ? mutable_data<T>(grad_x) : nullptr;
    const int64_t parts = chunks(p, args);
    const Tensor partials = scratch(sums ? p.clips * p.segments * parts * p.groups * 2 : 0);
    args.partials = sums ? mutable_data<A>(partials) : nullptr;
    if (need_x || sums) {
      run(p, args);
    }
    const Tensor totals = scratch(sums ? p.clips * p.groups * p.segments * 2 : 0);
    const Tensor grad_offset =
        need_offset ? torch::stable::new_empty(wide_offset, offset.sizes()) : scratch(0);
    const Tensor grad_weight =
        need_weight ? torch::stable::new_empty(wide_weight, weight.sizes()) : scratch(0);
    if (sums) {
      FinishArgs<T> end{};
      end.offset = args.offset;
      end.weight = args.weight;
      end.partials = args.partials;
      end.chunks = parts;
      end.totals = mutable_data<A>(totals);
      end.grad_offset = need_offset ? mutable_data<A>(grad_offset) : nullptr;
      end.grad_weight = need_weight ? mutable_data<A>(grad_weight) : nullptr;
      finish(p, end);
    }
    return {grad_x, narrowed(grad_offset, offset), narrowed(grad_weight, weight)};
  });
}

} // namespace tin
