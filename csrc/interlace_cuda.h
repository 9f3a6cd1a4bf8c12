// What interlace_cuda.cu offers to register_cuda.cpp; the two share no other header, so that nvcc sees no PyTorch.
#pragma once

#include "interlace.h"

namespace tin {

// All return nullptr, or what CUDA said. They set the device, launch on `stream` and return without waiting.
template <class T>
const char* cuda_forward(const Params& p, const ForwardArgs<T>& args, int device, void* stream);
template <class T>
const char* cuda_backward(const Params& p, const BackwardArgs<T>& args, int device, void* stream);
template <class T>
const char* cuda_finish(const Params& p, const FinishArgs<T>& args, int device, void* stream);

// Parts a frame's sums come in.
template <class T>
int64_t cuda_sum_parts(const Params& p, const BackwardArgs<T>& args);

} // namespace tin
