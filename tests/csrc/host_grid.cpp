// Walks the grids of the CUDA kernels on the CPU, block by block and thread by thread, with the barriers between steps.
#include <vector>

#include "interlace_columns.h"
#include "interlace_planes.h"

namespace {

using namespace tin;

template <class T>
int64_t forward(const Params& p, const ForwardArgs<T>& args) {
  const Grid grid = cuda_grid<T>(p, aligned(args.x, args.out));
  with_access<T>(grid, [&](auto access) {
    constexpr int V = access.vector, S = access.piece;
    for (int64_t block = 0; block < p.clips * p.segments * grid.parts; ++block) {
      for (int thread = 0; thread < kThreads; ++thread) {
        if (p.rows == 1) {
          planes_forward<V>(p, grid, args, block, thread);
        } else {
          columns_forward<V, S>(p, grid, args, block, thread);
        }
      }
    }
  });
  return grid.vector * 100 + grid.piece;
}

template <bool SUMS, class T>
void walk_backward(const Params& p, const Grid& grid, const BackwardArgs<T>& args) {
  with_access<T>(grid, [&](auto access) {
    constexpr int V = access.vector, S = access.piece;
    std::vector<Acc<T>> memory(kThreads * (V / S) * 2);
    Acc<T>* shared = memory.data();
    for (int64_t block = 0; block < p.clips * p.segments * grid.parts; ++block) {
      const auto step = [&](const auto& body) {
        for (int thread = 0; thread < kThreads; ++thread) {
          body(thread);
        }
      };
      if (p.rows == 1) {
        step([&](int thread) { planes_backward<V, SUMS>(p, grid, args, block, thread, shared); });
        if (SUMS) {
          step([&](int thread) { planes_sum_sixteenths<T>(thread, shared); });
          step([&](int thread) { planes_sum(p, grid, args, block, thread, shared); });
        }
      } else {
        step([&](int thread) { columns_backward<V, S, SUMS>(p, grid, args, block, thread, shared); });
        if (SUMS) {
          step([&](int thread) { columns_sum_slots<V, S, T>(grid, thread, shared); });
          step([&](int thread) { columns_sum_lanes<V, S>(p, grid, args, block, thread, shared); });
        }
      }
    }
  });
}

template <class T>
void backward(const Params& p, BackwardArgs<T> args, Acc<T>* grad_offset, Acc<T>* grad_weight) {
  const Grid grid = cuda_grid<T>(p, aligned(args.grad, args.x, args.grad_x));
  if (!grad_offset && !grad_weight) {
    walk_backward<false>(p, grid, args);
    return;
  }
  const int64_t chunks = sum_parts(p, grid);
  std::vector<Acc<T>> partials(p.clips * p.segments * chunks * p.groups * 2, NAN), totals(
      p.clips * p.groups * p.segments * 2, NAN);
  args.partials = partials.data();
  walk_backward<true>(p, grid, args);
  const FinishArgs<T> end{args.offset, args.weight, args.partials, chunks, totals.data(), grad_offset, grad_weight};
  for (int64_t i = 0; i < p.clips * p.groups; ++i) {
    for (int thread = 0; thread < kThreads; ++thread) {
      finish_totals(p, end, i / p.groups, i % p.groups, thread, kThreads);
    }
    for (int thread = 0; thread < kThreads; ++thread) {
      finish_gradients(p, end, i / p.groups, i % p.groups, thread, kThreads);
    }
  }
}

} // namespace

#define TIN_WALK(name, T)                                                                                              \
  extern "C" int64_t forward_##name(const Params* p, const T* x, const Acc<T>* offset, const Acc<T>* weight, T* out) { \
    return forward<T>(*p, {x, offset, weight, out});                                                                   \
  }                                                                                                                    \
  extern "C" void backward_##name(                                                                                     \
      const Params* p, const T* grad, const T* x, const Acc<T>* offset, const Acc<T>* weight, T* grad_x,               \
      Acc<T>* grad_offset, Acc<T>* grad_weight) {                                                                      \
    backward<T>(*p, {grad, x, offset, weight, grad_x, nullptr}, grad_offset, grad_weight);                             \
  }

TIN_WALK(float32, float)
TIN_WALK(float64, double)
TIN_WALK(float16, Half)
TIN_WALK(bfloat16, BFloat16)
