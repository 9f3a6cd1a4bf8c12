// Gives PyTorch the CUDA kernels; register_cpu.cpp or tin/ops.py defines the ops themselves.
#include <dlfcn.h>

#include "cuda_stream.h"
#include "interlace_cuda.h"
#include "tensors.h"

namespace tin {
namespace {

using CurrentStream = AOTITorchError (*)(int32_t device, void** stream);

// Looked up in the library that PyTorch has loaded: linked against it, this one would not load without it.
CurrentStream current_stream_function() {
  void* torch_cuda = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
  STD_TORCH_CHECK(torch_cuda, "PyTorch has no libtorch_cuda.so loaded: this PyTorch was built without CUDA");
  void* function = dlsym(torch_cuda, "aoti_torch_get_current_cuda_stream");
  STD_TORCH_CHECK(function, "libtorch_cuda.so has no aoti_torch_get_current_cuda_stream");
  return reinterpret_cast<CurrentStream>(function);
}

} // namespace

void* current_stream(int32_t device) {
  static const CurrentStream function = current_stream_function();
  void* stream = nullptr;
  STD_TORCH_CHECK(function(device, &stream) == AOTI_TORCH_SUCCESS, "no current CUDA stream on device ", device);
  return stream;
}

namespace {

Tensor forward(Tensor x, Tensor offset, Tensor weight, int64_t num_segments, std::optional<int64_t> group_size) {
  const int32_t device = x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  return forward_with(x, offset, weight, num_segments, group_size, [&](const Params& p, const auto& args) {
    check_cuda(cuda_forward(p, args, device, current_stream(device)));
  });
}

Tensors backward(
    Tensor grad, Tensor x, Tensor offset, Tensor weight, int64_t num_segments, bool need_x, bool need_offset,
    bool need_weight, std::optional<int64_t> group_size, std::optional<Tensor> passed) {
  const int32_t device = x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  return backward_with(
      grad, x, offset, weight, num_segments, need_x, need_offset, need_weight, group_size, passed,
      [](const Params& p, const auto& args) { return cuda_sum_parts(p, args); },
      [&](const Params& p, const auto& args) { check_cuda(cuda_backward(p, args, device, current_stream(device))); },
      [&](const Params& p, const auto& args) { check_cuda(cuda_finish(p, args, device, current_stream(device))); });
}

} // namespace
} // namespace tin

STABLE_TORCH_LIBRARY_IMPL(tin, CUDA, m) {
  m.impl("temporal_interlace", TORCH_BOX(&tin::forward));
  m.impl("temporal_interlace_backward", TORCH_BOX(&tin::backward));
}
