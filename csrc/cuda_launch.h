// How the CUDA sources launch a kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace tin {

// For debugging only: TIN_DEBUG_SYNC=1 waits after every kernel, so that an error is reported where it was made.
static inline bool debug_sync() {
  static const bool wanted = [] {
    const char* value = std::getenv("TIN_DEBUG_SYNC");
    return value && *value && std::strcmp(value, "0") != 0;
  }();
  return wanted;
}

template <class Kernel, class... Args>
const char* launch(
    Kernel kernel, int64_t blocks, int threads, size_t shared, int device, void* stream, const Args&... args) {
  if (blocks > INT32_MAX) {
    return "the tensor needs more blocks than a grid can have";
  }
  // The CUDA runtime linked into this library keeps its own current device.
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess) {
    kernel<<<static_cast<unsigned>(blocks), threads, shared, static_cast<cudaStream_t>(stream)>>>(args...);
    error = cudaGetLastError();
  }
  if (error == cudaSuccess && debug_sync()) {
    error = cudaStreamSynchronize(static_cast<cudaStream_t>(stream));
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

} // namespace tin
