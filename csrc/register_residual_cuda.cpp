// Gives PyTorch the CUDA kernels of the join and of TIN's small networks; register_*_cpu.cpp define the ops.
#include "cuda_stream.h"
#include "join_tensors.h"
#include "nets_tensors.h"
#include "residual_cuda.h"

namespace tin {
namespace {

using torch::stable::accelerator::DeviceGuard;

void refuse_fold(const OptionalTensor& fold) {
  STD_TORCH_CHECK(!fold, "fold is for the CPU: temporal_interlace_ has no CUDA kernel");
}

void add_relu(Tensor branch, Tensor identity, OptionalTensor fold) {
  refuse_fold(fold);
  const int32_t device = branch.get_device_index();
  const DeviceGuard guard(device);
  join_with(branch, identity, fold, nullptr, [&](const auto& args) {
    check_cuda(cuda_join(args, device, current_stream(device)));
  });
}

Tensor add_relu_signs(Tensor branch, Tensor identity, OptionalTensor fold) {
  refuse_fold(fold);
  const int32_t device = branch.get_device_index();
  const DeviceGuard guard(device);
  const Tensor signs = new_signs(branch);
  join_with(branch, identity, fold, &signs, [&](const auto& args) {
    check_cuda(cuda_join(args, device, current_stream(device)));
  });
  return signs;
}

Tensor add_relu_backward(Tensor grad, Tensor signs) {
  const int32_t device = grad.get_device_index();
  const DeviceGuard guard(device);
  return join_backward_with(grad, signs, [&](const auto& args) {
    check_cuda(cuda_join_backward(args, device, current_stream(device)));
  });
}

void norm_add_relu(
    Tensor branch, Tensor identity, Tensor mean, Tensor var, Tensor weight, Tensor bias, double eps,
    OptionalTensor fold) {
  refuse_fold(fold);
  const int32_t device = branch.get_device_index();
  const DeviceGuard guard(device);
  norm_join_with(branch, identity, fold, mean, var, weight, bias, [&](const auto& args, const auto& norm) {
    check_cuda(cuda_norm_join(args, norm, eps, device, current_stream(device)));
  });
}

Tensors nets(Tensor pooled, std::vector<Tensor> weights, int64_t num_segments) {
  const int32_t device = pooled.get_device_index();
  const DeviceGuard guard(device);
  return nets_with(pooled, weights, num_segments, [&](const auto& args) {
    check_cuda(cuda_nets(args, device, current_stream(device)));
  });
}

std::vector<Tensor> nets_backward(
    Tensor pooled, std::vector<Tensor> weights, Tensor offset, Tensor weight, Tensor state, Tensor grad_offset,
    Tensor grad_weight, int64_t num_segments) {
  const int32_t device = pooled.get_device_index();
  const DeviceGuard guard(device);
  return nets_backward_with(
      pooled, weights, offset, weight, state, grad_offset, grad_weight, num_segments,
      [&](const auto& args) { check_cuda(cuda_nets_backward(args, device, current_stream(device))); });
}

} // namespace
} // namespace tin

STABLE_TORCH_LIBRARY_IMPL(tin, CUDA, m) {
  m.impl("add_relu_", TORCH_BOX(&tin::add_relu));
  m.impl("add_relu_signs_", TORCH_BOX(&tin::add_relu_signs));
  m.impl("add_relu_backward", TORCH_BOX(&tin::add_relu_backward));
  m.impl("norm_add_relu_", TORCH_BOX(&tin::norm_add_relu));
  m.impl("interlace_nets", TORCH_BOX(&tin::nets));
  m.impl("interlace_nets_backward", TORCH_BOX(&tin::nets_backward));
}
