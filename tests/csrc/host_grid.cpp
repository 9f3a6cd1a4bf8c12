// Walks the grids of the CUDA kernels on the CPU, block by block and thread by thread, with the barriers between steps.
#include <type_traits>
#include <vector>

#include "interlace_columns.h"
#include "interlace_planes.h"
#include "join_grid.h"
#include "nets.h"

namespace {

using namespace tin;

template <class Step>
void step(const Step& body) {
  for (int thread = 0; thread < kThreads; ++thread) {
    body(thread);
  }
}

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
  const Grid grid = cuda_grid<T>(p, aligned(args.grad, args.passed, args.x, args.grad_x));
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

// Three threads of a grid that is too small, so that they go on in strides.
template <class Body>
void over_threads(bool wide, const Body& body) {
  for (int64_t thread = 0; thread < 3; ++thread) {
    if (wide) {
      body(std::true_type(), thread, 3);
    } else {
      body(std::false_type(), thread, 3);
    }
  }
}

} // namespace

extern "C" void nets_float64(
    int64_t clips, int64_t segments, int64_t fold, const double* pooled, const double* const* w, double* offset,
    double* weight, double* state) {
  const NetsArgs<double> args{
      clips, segments, fold, pooled, {w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]}, offset, weight, state};
  for (int64_t n = 0; n < clips; ++n) {
    std::vector<double> shared(segments * 3 * kNetParts, NAN);
    step([&](int thread) { nets_parts(args, n, thread, kThreads, shared.data()); });
    step([&](int thread) { nets_gains(args, n, thread, kThreads, shared.data()); });
    step([&](int thread) { nets_hidden(args, n, thread, kThreads); });
    step([&](int thread) { nets_offsets(args, n, thread, kThreads); });
  }
}

extern "C" void nets_backward_float64(
    int64_t clips, int64_t segments, int64_t fold, const double* pooled, const double* const* w, const double* offset,
    const double* weight, const double* state, const double* grad_offset, const double* grad_weight,
    double* grad_pooled, double* const* g) {
  std::vector<double> flows(clips * segments * 4, NAN), ends(clips * 2, NAN);
  const NetsBackwardArgs<double> args{
      clips, segments, fold, pooled, {w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]}, offset, weight, state,
      grad_offset, grad_weight, grad_pooled, flows.data(), ends.data(),
      {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7]}};
  for (int64_t n = 0; n < clips; ++n) {
    step([&](int thread) { nets_ends(args, n, thread, kThreads); });
    step([&](int thread) { nets_hidden_flow(args, n, thread, kThreads); });
    step([&](int thread) { nets_offset_flow(args, n, thread, kThreads); });
    step([&](int thread) { nets_pooled_flow(args, n, thread, kThreads); });
  }
  for (int64_t item = 0; item < nets_items(args); ++item) {
    nets_weight_grads(args, item);
  }
}

#define TIN_WALK(name, T)                                                                                              \
  extern "C" int64_t forward_##name(const Params* p, const T* x, const Acc<T>* offset, const Acc<T>* weight, T* out) { \
    return forward<T>(*p, {x, offset, weight, out});                                                                   \
  }                                                                                                                    \
  extern "C" void backward_##name(                                                                                     \
      const Params* p, const T* grad, const T* x, const Acc<T>* offset, const Acc<T>* weight, T* grad_x,               \
      Acc<T>* grad_offset, Acc<T>* grad_weight, const T* passed, int64_t x_row, int64_t x_frame) {                     \
    backward<T>(*p, {grad, passed, x, x_row, x_frame, offset, weight, grad_x, nullptr}, grad_offset, grad_weight);     \
  }                                                                                                                    \
  extern "C" void join_##name(T* branch, const T* identity, uint8_t* signs, int64_t count) {                           \
    const JoinArgs<T> args{branch, identity, signs, count, nullptr, 0, 0};                                             \
    over_threads(aligned(branch, identity), [&](auto wide, int64_t thread, int64_t threads) {                          \
      join_thread<wide.value>(args, thread, threads);                                                                  \
    });                                                                                                                \
  }                                                                                                                    \
  extern "C" void join_backward_##name(const T* grad, const uint8_t* signs, T* out, int64_t count) {                   \
    const JoinBackwardArgs<T> args{grad, signs, out, count};                                                           \
    over_threads(aligned(grad, out), [&](auto wide, int64_t thread, int64_t threads) {                                 \
      join_backward_thread<wide.value>(args, thread, threads);                                                         \
    });                                                                                                                \
  }                                                                                                                    \
  extern "C" void norm_join_##name(                                                                                    \
      T* branch, const T* identity, const Acc<T>* mean, const Acc<T>* var, const Acc<T>* weight, const Acc<T>* bias,   \
      double eps, int64_t channels, int64_t inner, int64_t count) {                                                    \
    NormJoinArgs<T> args{};                                                                                            \
    args.out = branch;                                                                                                 \
    args.identity = identity;                                                                                          \
    args.channels = channels;                                                                                          \
    args.inner = inner;                                                                                                \
    args.count = count;                                                                                                \
    const Norm<T> norm{mean, var, weight, bias};                                                                       \
    over_threads(aligned(branch, identity), [&](auto wide, int64_t thread, int64_t threads) {                          \
      norm_join_thread<wide.value>(args, norm, static_cast<Acc<T>>(eps), thread, threads);                             \
    });                                                                                                                \
  }

TIN_WALK(float32, float)
TIN_WALK(float64, double)
TIN_WALK(float16, Half)
TIN_WALK(bfloat16, BFloat16)
