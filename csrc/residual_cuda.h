// What residual_cuda.cu offers to register_residual_cuda.cpp; the two share no other header, so that nvcc sees no PyTorch.
#pragma once

#include "join.h"
#include "nets.h"

namespace tin {

// All return nullptr, or what CUDA said. They set the device, launch on `stream` and return without waiting.
template <class T>
const char* cuda_join(const JoinArgs<T>& args, int device, void* stream);
template <class T>
const char* cuda_join_backward(const JoinBackwardArgs<T>& args, int device, void* stream);
template <class T>
const char* cuda_norm_join(const NormJoinArgs<T>& args, const Norm<T>& norm, double eps, int device, void* stream);
template <class A>
const char* cuda_nets(const NetsArgs<A>& args, int device, void* stream);
template <class A>
const char* cuda_nets_backward(const NetsBackwardArgs<A>& args, int device, void* stream);

} // namespace tin
