// The CUDA kernels: interlace_columns.h and interlace_planes.h give what a thread does, this file the barriers and the
// launches.
#include "interlace_cuda.h"

#include "cuda_launch.h"
#include "interlace_columns.h"
#include "interlace_planes.h"

// Told of two blocks a multiprocessor, the compiler takes the registers it needs; left alone it spills a few to fit in
// more blocks.
#define TIN_BOUNDS __launch_bounds__(kThreads, 2)

namespace tin {
namespace {

template <int V, int S, class T>
__global__ void TIN_BOUNDS columns_forward_kernel(Params p, Grid grid, ForwardArgs<T> args) {
  columns_forward<V, S>(p, grid, args, blockIdx.x, threadIdx.x);
}

template <int V, int S, bool SUMS, class T>
__global__ void TIN_BOUNDS columns_backward_kernel(Params p, Grid grid, BackwardArgs<T> args) {
  __shared__ Acc<T> shared[SUMS ? kThreads * (V / S) * 2 : 1];
  columns_backward<V, S, SUMS>(p, grid, args, blockIdx.x, threadIdx.x, shared);
  if constexpr (SUMS) {
    __syncthreads();
    columns_sum_slots<V, S, T>(grid, threadIdx.x, shared);
    __syncthreads();
    columns_sum_lanes<V, S>(p, grid, args, blockIdx.x, threadIdx.x, shared);
  }
}

template <int V, class T>
__global__ void TIN_BOUNDS planes_forward_kernel(Params p, Grid grid, ForwardArgs<T> args) {
  planes_forward<V>(p, grid, args, blockIdx.x, threadIdx.x);
}

template <int V, bool SUMS, class T>
__global__ void TIN_BOUNDS planes_backward_kernel(Params p, Grid grid, BackwardArgs<T> args) {
  __shared__ Acc<T> shared[SUMS ? kThreads * 2 : 1];
  planes_backward<V, SUMS>(p, grid, args, blockIdx.x, threadIdx.x, shared);
  if constexpr (SUMS) {
    __syncthreads();
    planes_sum_sixteenths<T>(threadIdx.x, shared);
    __syncthreads();
    planes_sum(p, grid, args, blockIdx.x, threadIdx.x, shared);
  }
}

template <class T>
__global__ void TIN_BOUNDS finish_kernel(Params p, FinishArgs<T> args) {
  const int64_t n = blockIdx.x / p.groups, k = blockIdx.x % p.groups;
  finish_totals(p, args, n, k, threadIdx.x, blockDim.x);
  __syncthreads(); // the totals of (n, k) are written and read by this block alone
  finish_gradients(p, args, n, k, threadIdx.x, blockDim.x);
}

template <class T>
const char* launch_on_grid(const Params& p, const Grid& grid, const ForwardArgs<T>& args, int device, void* stream) {
  return with_access<T>(grid, [&](auto access) {
    constexpr int V = access.vector, S = access.piece;
    const auto kernel = p.rows == 1 ? planes_forward_kernel<V, T> : columns_forward_kernel<V, S, T>;
    return launch(kernel, p.clips * p.segments * grid.parts, kThreads, 0, device, stream, p, grid, args);
  });
}

template <class T>
const char* launch_on_grid(const Params& p, const Grid& grid, const BackwardArgs<T>& args, int device, void* stream) {
  return with_access<T>(grid, [&](auto access) {
    constexpr int V = access.vector, S = access.piece;
    const auto with_sums = p.rows == 1 ? planes_backward_kernel<V, true, T> : columns_backward_kernel<V, S, true, T>;
    const auto without = p.rows == 1 ? planes_backward_kernel<V, false, T> : columns_backward_kernel<V, S, false, T>;
    const auto kernel = args.partials ? with_sums : without;
    return launch(kernel, p.clips * p.segments * grid.parts, kThreads, 0, device, stream, p, grid, args);
  });
}

} // namespace

template <class T>
const char* cuda_forward(const Params& p, const ForwardArgs<T>& args, int device, void* stream) {
  return launch_on_grid<T>(p, cuda_grid<T>(p, aligned(args.x, args.out)), args, device, stream);
}

template <class T>
const char* cuda_backward(const Params& p, const BackwardArgs<T>& args, int device, void* stream) {
  return launch_on_grid<T>(p, cuda_grid<T>(p, aligned(args.grad, args.passed, args.x, args.grad_x)), args, device, stream);
}

template <class T>
int64_t cuda_sum_parts(const Params& p, const BackwardArgs<T>& args) {
  return sum_parts(p, cuda_grid<T>(p, aligned(args.grad, args.passed, args.x, args.grad_x)));
}

template <class T>
const char* cuda_finish(const Params& p, const FinishArgs<T>& args, int device, void* stream) {
  return launch(finish_kernel<T>, p.clips * p.groups, kThreads, 0, device, stream, p, args);
}

#define TIN_INSTANTIATE(T)                                                                      \
  template const char* cuda_forward<T>(const Params&, const ForwardArgs<T>&, int, void*);       \
  template const char* cuda_backward<T>(const Params&, const BackwardArgs<T>&, int, void*);     \
  template const char* cuda_finish<T>(const Params&, const FinishArgs<T>&, int, void*);         \
  template int64_t cuda_sum_parts<T>(const Params&, const BackwardArgs<T>&);

TIN_INSTANTIATE(float)
TIN_INSTANTIATE(double)
TIN_INSTANTIATE(Half)
TIN_INSTANTIATE(BFloat16)

} // namespace tin
