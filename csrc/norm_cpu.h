// What norm_cpu.cpp offers for one instruction set: a batch norm with the addition and the ReLU after it, and its gradients.
#pragma once

#include "cpu_level.h"
#include "join.h"
#include "pool_cpu.h"

namespace tin {

// The mean and the variance of a batch over channels_last memory: of items first, then of all, so that float loses few digits and
// the number of threads changes nothing. Item i is rows [block * i, ...).
template <class T>
struct StatsArgs {
  const T* x;
  Acc<T>* means; // (items, channels)
  Acc<T>* squares; // (items, channels), of the distances from the item's own mean
  int64_t rows, channels, block;
};

// x_grad = factor * (grad - level - slope * (x - mean)), where level is the mean of grad over the batch and slope that of
// grad * (x - mean) divided by the variance.
template <class T>
struct NormBackwardArgs {
  const T* grad;
  const uint8_t* signs; // which elements of grad pass, as in JoinBackwardArgs; null: all
  const T* x;
  T* x_grad;
  const Acc<T>* mean; // (channels,)
  Acc<T>* sums; // (items, 2, channels), of grad and of grad * (x - mean); items as in StatsArgs
  const Acc<T>* factor; // (channels,) each
  const Acc<T>* level;
  const Acc<T>* slope;
  int64_t rows, channels, block;
};

// Rows of an item: some 128 kB, which stay in the second-level cache while they are read twice.
TIN_INLINE int64_t norm_block(int64_t channels) {
  return channels < 2048 ? 32768 / channels : 16;
}

template <class T>
struct NormKernels {
  // rows of `channels` elements where inner is 1, else planes of `inner` without signs
  void (*norm_join)(const NormJoinArgs<T>&, int64_t begin, int64_t end);
  void (*norm_join_pooled)(const NormJoinArgs<T>&, const PoolArgs<T>&, int64_t begin, int64_t end); // items
  void (*stats)(const StatsArgs<T>&, int64_t begin, int64_t end); // items
  void (*sums)(const NormBackwardArgs<T>&, int64_t begin, int64_t end); // items
  void (*backward)(const NormBackwardArgs<T>&, int64_t begin, int64_t end); // rows
};

using NormTable = KernelTable<NormKernels>;

TIN_DECLARE_LEVELS(NormTable, norm);

} // namespace tin
