// The CUDA kernels of the join and of TIN's small networks: join_grid.h and nets.h give what a thread does, this file the
// barriers and the launches.
#include "residual_cuda.h"

#include "cuda_launch.h"
#include "join_grid.h"

namespace tin {
namespace {

// Threads enough to fill any GPU; they go on in strides.
constexpr int64_t kMostBlocks = 8192;

template <bool WIDE, class T>
__global__ void __launch_bounds__(kThreads) join_kernel(JoinArgs<T> args) {
  join_thread<WIDE>(args, blockIdx.x * int64_t(kThreads) + threadIdx.x, gridDim.x * int64_t(kThreads));
}

template <bool WIDE, class T>
__global__ void __launch_bounds__(kThreads) join_backward_kernel(JoinBackwardArgs<T> args) {
  join_backward_thread<WIDE>(args, blockIdx.x * int64_t(kThreads) + threadIdx.x, gridDim.x * int64_t(kThreads));
}

template <bool WIDE, class T>
__global__ void __launch_bounds__(kThreads) norm_join_kernel(NormJoinArgs<T> args, Norm<T> norm, Acc<T> eps) {
  norm_join_thread<WIDE>(args, norm, eps, blockIdx.x * int64_t(kThreads) + threadIdx.x, gridDim.x * int64_t(kThreads));
}

template <class A>
__global__ void __launch_bounds__(kThreads) nets_kernel(NetsArgs<A> args) {
  extern __shared__ unsigned char memory[];
  A* shared = reinterpret_cast<A*>(memory);
  nets_parts(args, blockIdx.x, threadIdx.x, kThreads, shared);
  __syncthreads();
  nets_gains(args, blockIdx.x, threadIdx.x, kThreads, shared);
  __syncthreads(); // a clip's state is written and read by this block alone
  nets_hidden(args, blockIdx.x, threadIdx.x, kThreads);
  __syncthreads();
  nets_offsets(args, blockIdx.x, threadIdx.x, kThreads);
}

template <class A>
__global__ void __launch_bounds__(kThreads) nets_backward_kernel(NetsBackwardArgs<A> args) {
  nets_ends(args, blockIdx.x, threadIdx.x, kThreads);
  __syncthreads();
  nets_hidden_flow(args, blockIdx.x, threadIdx.x, kThreads);
  __syncthreads();
  nets_offset_flow(args, blockIdx.x, threadIdx.x, kThreads);
  __syncthreads();
  nets_pooled_flow(args, blockIdx.x, threadIdx.x, kThreads);
}

constexpr int kItemThreads = 64; // few, so that the few hundred items are spread over many multiprocessors

template <class A>
__global__ void __launch_bounds__(kItemThreads) nets_weight_grads_kernel(NetsBackwardArgs<A> args) {
  const int64_t item = blockIdx.x * int64_t(kItemThreads) + threadIdx.x;
  if (item < nets_items(args)) {
    nets_weight_grads(args, item);
  }
}

int64_t blocks_for(int64_t count) {
  const int64_t blocks = divide_up(join_eights(count), kThreads);
  return blocks < kMostBlocks ? blocks : kMostBlocks;
}

} // namespace

template <class T>
const char* cuda_join(const JoinArgs<T>& args, int device, void* stream) {
  const auto kernel = aligned(args.branch, args.identity) ? join_kernel<true, T> : join_kernel<false, T>;
  return launch(kernel, blocks_for(args.count), kThreads, 0, device, stream, args);
}

template <class T>
const char* cuda_join_backward(const JoinBackwardArgs<T>& args, int device, void* stream) {
  const auto kernel = aligned(args.grad, args.out) ? join_backward_kernel<true, T> : join_backward_kernel<false, T>;
  return launch(kernel, blocks_for(args.count), kThreads, 0, device, stream, args);
}

template <class T>
const char* cuda_norm_join(const NormJoinArgs<T>& args, const Norm<T>& norm, double eps, int device, void* stream) {
  const auto kernel = aligned(args.out, args.identity) ? norm_join_kernel<true, T> : norm_join_kernel<false, T>;
  return launch(kernel, blocks_for(args.count), kThreads, 0, device, stream, args, norm, static_cast<Acc<T>>(eps));
}

template <class A>
const char* cuda_nets(const NetsArgs<A>& args, int device, void* stream) {
  const size_t shared = static_cast<size_t>(args.segments) * 3 * kNetParts * sizeof(A);
  return launch(nets_kernel<A>, args.clips, kThreads, shared, device, stream, args);
}

template <class A>
const char* cuda_nets_backward(const NetsBackwardArgs<A>& args, int device, void* stream) {
  const char* error = launch(nets_backward_kernel<A>, args.clips, kThreads, 0, device, stream, args);
  return error ? error
               : launch(nets_weight_grads_kernel<A>, divide_up(nets_items(args), kItemThreads), kItemThreads, 0, device,
                        stream, args);
}

#define TIN_INSTANTIATE(T)                                                                       \
  template const char* cuda_join<T>(const JoinArgs<T>&, int, void*);                             \
  template const char* cuda_join_backward<T>(const JoinBackwardArgs<T>&, int, void*);            \
  template const char* cuda_norm_join<T>(const NormJoinArgs<T>&, const Norm<T>&, double, int, void*);

TIN_INSTANTIATE(float)
TIN_INSTANTIATE(double)
TIN_INSTANTIATE(Half)
TIN_INSTANTIATE(BFloat16)

template const char* cuda_nets<float>(const NetsArgs<float>&, int, void*);
template const char* cuda_nets<double>(const NetsArgs<double>&, int, void*);
template const char* cuda_nets_backward<float>(const NetsBackwardArgs<float>&, int, void*);
template const char* cuda_nets_backward<double>(const NetsBackwardArgs<double>&, int, void*);

} // namespace tin
