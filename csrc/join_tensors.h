// From tensors to the arguments of the join: checks and outputs, the same for CPU and CUDA.
#pragma once

#include <initializer_list>
#include <memory>

#include "join.h"
#include "tensors.h"

namespace tin {

inline bool is_dense(const Tensor& x) {
  return x.dim() == 4 && (x.is_contiguous() || is_channels_last(x));
}

inline bool alike(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim() || a.scalar_type() != b.scalar_type() || a.device() != b.device()) {
    return false;
  }
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) != b.size(d) || (a.size(d) != 1 && a.stride(d) != b.stride(d))) {
      return false;
    }
  }
  return true;
}

inline void check_join(const Tensor& branch, const Tensor& identity) {
  STD_TORCH_CHECK(
      is_dense(branch) && alike(branch, identity),
      "branch and identity must be (N, C, H, W) of one dtype, device and layout, contiguous or channels_last, got ",
      shape_text(branch), " and ", shape_text(identity));
}

inline Tensor new_signs(const Tensor& branch) {
  return torch::stable::new_empty(branch, {(branch.numel() + 7) / 8}, ScalarType::Byte);
}

inline void check_fold(const Tensor& branch, const OptionalTensor& fold) {
  STD_TORCH_CHECK(
      !fold || (is_channels_last(branch) && fold->dim() == 4 && is_channels_last(*fold) &&
                fold->scalar_type() == branch.scalar_type() && fold->device() == branch.device() &&
                fold->size(0) == branch.size(0) && fold->size(2) == branch.size(2) && fold->size(3) == branch.size(3) &&
                fold->size(1) <= branch.size(1) && fold->size(1) % 8 == 0 && branch.size(1) % 8 == 0),
      "branch and fold must be channels_last, of one size and multiples of 8 channels, got ", shape_text(branch),
      fold ? shape_text(*fold) : "");
}

// run(JoinArgs<T>), unless there is nothing to do.
template <class Run>
void join_with(
    const Tensor& branch, const Tensor& identity, const OptionalTensor& fold, const Tensor* signs, const Run& run) {
  check_join(branch, identity);
  check_fold(branch, fold);
  if (branch.numel() == 0) {
    return;
  }
  with_type(branch, [&](auto type) {
    using T = decltype(type);
    run(JoinArgs<T>{
        mutable_data<T>(branch), data<T>(identity), signs ? mutable_data<uint8_t>(*signs) : nullptr, branch.numel(),
        fold ? data<T>(*fold) : nullptr, fold ? fold->size(1) : 0, branch.size(1)});
  });
}

// run(JoinBackwardArgs<T>); grad is laid out as the branch was.
template <class Run>
Tensor join_backward_with(const Tensor& grad, const Tensor& signs, const Run& run) {
  STD_TORCH_CHECK(
      is_dense(grad) && signs.scalar_type() == ScalarType::Byte && signs.numel() == (grad.numel() + 7) / 8,
      "grad must be (N, C, H, W), contiguous or channels_last, with a bit of signs an element, got ",
      shape_text(grad), " and ", shape_text(signs));
  const Tensor out = torch::stable::empty_like(grad);
  if (grad.numel() > 0) {
    with_type(grad, [&](auto type) {
      using T = decltype(type);
      run(JoinBackwardArgs<T>{data<T>(grad), data<uint8_t>(signs), mutable_data<T>(out), grad.numel()});
    });
  }
  return out;
}

template <class T>
void check_per_channel(const Tensor& x, std::initializer_list<const Tensor*> parts) {
  for (const Tensor* part : parts) {
    STD_TORCH_CHECK(
        part->dim() == 1 && part->size(0) == x.size(1) && part->is_contiguous() &&
            part->scalar_type() == accumulate_type<T> && part->device() == x.device(),
        "what a batch norm has for each channel must be (C,) = (", x.size(1), ",), float32, or float64 like x");
  }
}

// run(NormJoinArgs<T> but for scale and shift, Norm<T>)
template <class Run>
void norm_join_with(
    const Tensor& branch, const Tensor& identity, const OptionalTensor& fold, const Tensor& mean, const Tensor& var,
    const Tensor& weight, const Tensor& bias, const Run& run) {
  check_join(branch, identity);
  check_fold(branch, fold);
  with_type(branch, [&](auto type) {
    using T = decltype(type);
    using A = Acc<T>;
    check_per_channel<T>(branch, {&mean, &var, &weight, &bias});
    if (branch.numel() == 0) {
      return;
    }
    NormJoinArgs<T> args{};
    args.x = args.out = mutable_data<T>(branch);
    args.identity = data<T>(identity);
    args.fold = fold ? data<T>(*fold) : nullptr;
    args.folded = fold ? fold->size(1) : 0;
    args.channels = branch.size(1);
    args.inner = is_channels_last(branch) ? 1 : branch.size(2) * branch.size(3);
    args.count = branch.numel();
    run(args, Norm<T>{data<A>(mean), data<A>(var), data<A>(weight), data<A>(bias)});
  });
}

} // namespace tin
