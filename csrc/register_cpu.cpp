// Defines the two ops and gives PyTorch their CPU kernels. Compiled for the plainest processor; it chooses the kernels.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "interlace_cpu.h"
#include "tensors.h"

namespace tin {
namespace {

// The best level this processor has, or the lower one that the environment variable TIN_SIMD names.
const CpuLevel& best_level() {
  const char* wanted = std::getenv("TIN_SIMD");
  const auto may_use = [&](const CpuLevel& level) { return !wanted || std::strcmp(wanted, level.name) == 0; };
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && may_use(cpu_avx512)) {
    return cpu_avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
      may_use(cpu_avx2)) {
    return cpu_avx2;
  }
#endif
  return cpu_generic;
}

const CpuLevel& level() {
  static const CpuLevel& chosen = best_level();
  return chosen;
}

const CpuKernels<float>& kernels_of(float) {
  return level().float32;
}
const CpuKernels<double>& kernels_of(double) {
  return level().float64;
}
const CpuKernels<Half>& kernels_of(Half) {
  return level().float16;
}
const CpuKernels<BFloat16>& kernels_of(BFloat16) {
  return level().bfloat16;
}

// Chunks a thread should have at least: below this, waking it costs more than it does.
int64_t grain(const Params& p, const CpuGrid& grid) {
  constexpr int64_t elements = 32768; // as at::internal::GRAIN_SIZE
  return std::max<int64_t>(1, elements * grid.chunks / p.frame);
}

template <class T, class Args, class Kernel>
void over_chunks(const Params& p, const Args& args, Kernel kernel) {
  const CpuGrid grid = cpu_grid(p, sizeof(T));
  torch::stable::parallel_for(
      0, p.clips * p.segments * grid.chunks, grain(p, grid),
      [&](int64_t begin, int64_t end) { kernel(p, grid, args, begin, end); });
}

Tensor forward(Tensor x, Tensor offset, Tensor weight, int64_t num_segments, std::optional<int64_t> group_size) {
  return forward_with(
      x, offset, weight, num_segments, group_size,
      []<class T>(const Params& p, const ForwardArgs<T>& args) { over_chunks<T>(p, args, kernels_of(T()).forward); });
}

Tensors backward(
    Tensor grad, Tensor x, Tensor offset, Tensor weight, int64_t num_segments, bool need_x, bool need_offset,
    bool need_weight, std::optional<int64_t> group_size) {
  return backward_with(
      grad, x, offset, weight, num_segments, need_x, need_offset, need_weight, group_size,
      []<class T>(const Params& p, const BackwardArgs<T>&) { return cpu_grid(p, sizeof(T)).chunks; },
      []<class T>(const Params& p, const BackwardArgs<T>& args) {
        over_chunks<T>(p, args, kernels_of(T()).backward);
      },
      []<class T>(const Params& p, const FinishArgs<T>& args) {
        kernels_of(T()).finish(p, args, 0, p.clips * p.groups);
      });
}

} // namespace
} // namespace tin

extern "C" __attribute__((visibility("default"))) const char* tin_simd_level() {
  return tin::level().name;
}

STABLE_TORCH_LIBRARY(tin, m) {
  m.def("temporal_interlace(Tensor x, Tensor offset, Tensor weight, int num_segments, int? group_size=None) -> Tensor");
  m.def(
      "temporal_interlace_backward(Tensor grad, Tensor x, Tensor offset, Tensor weight, int num_segments, bool need_x, "
      "bool need_offset, bool need_weight, int? group_size=None) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(tin, CPU, m) {
  m.impl("temporal_interlace", TORCH_BOX(&tin::forward));
  m.impl("temporal_interlace_backward", TORCH_BOX(&tin::backward));
}
