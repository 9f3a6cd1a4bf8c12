// How the CPU kernels of joins and norms are run over rows, and over frames whose means are wanted.
#pragma once

#include "join_cpu.h"
#include "join_tensors.h"

namespace tin {

// kernel(args, begin, end) over all rows of `length` elements
template <class Args, class Kernel>
void over_rows(const Args& args, int64_t length, Kernel kernel) {
  torch::stable::parallel_for(
      0, args.count / length, kGrain / length + 1, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
}

inline void check_pool(const Tensor& x, int64_t pooled) {
  STD_TORCH_CHECK(
      x.dim() == 4 && is_channels_last(x) && x.numel() > 0 && x.size(1) % 8 == 0 && pooled >= 1 && pooled <= x.size(1),
      "what is joined must be channels_last, not empty and of a multiple of 8 channels, pooled from 1 to its channels, got ",
      shape_text(x), " and ", pooled);
}

inline Tensor new_means(const Tensor& x, int64_t pooled) {
  const ScalarType wide = x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  return torch::stable::new_empty(x, {x.size(0), pooled}, wide);
}

// kernel(args, PoolArgs<T>, begin, end) over all items of x, which is joined so; fills `means`.
template <template <class> class Args, class T, class Kernel>
void over_pooled(const Args<T>& args, const Tensor& x, const Tensor& means, int64_t pooled, Kernel kernel) {
  PoolArgs<T> pool{nullptr, mutable_data<Acc<T>>(means), x.size(2) * x.size(3), pooled};
  const int64_t frames = x.size(0), items = frames * pool_blocks(pool);
  const Tensor sums = torch::stable::new_empty(means, {items, pooled});
  pool.sums = mutable_data<Acc<T>>(sums);
  torch::stable::parallel_for(0, items, grain_of(kPoolRows * x.size(1)), [&](int64_t begin, int64_t end) {
    kernel(args, pool, begin, end);
  });
  kernels_for(TIN_AT_LEVEL(join), T()).means(pool, 0, frames);
}

} // namespace tin
