// PyTorch's current stream, and CUDA's errors as PyTorch's.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace tin {

void* current_stream(int32_t device);

inline void check_cuda(const char* error) {
  STD_TORCH_CHECK(!error, "CUDA: ", error);
}

} // namespace tin
