// Means over a frame that are taken in the pass that makes it, for the CPU kernels in each instruction set.
#pragma once

#include "cpu_level.h"

namespace tin {

// Those of a join's first channels over channels_last memory, which the next split wants. Item i is rows
// [kPoolRows * (i % blocks), ...) of frame i / blocks.
template <class T>
struct PoolArgs {
  Acc<T>* sums; // (frames, blocks, pooled)
  Acc<T>* means; // (frames, pooled)
  int64_t pixels; // rows a frame
  int64_t pooled; // channels
};

template <class T>
TIN_INLINE int64_t pool_blocks(const PoolArgs<T>& pool) {
  return (pool.pixels + kPoolRows - 1) / kPoolRows;
}

// Makes the rows of items, each by join_one(row), and sums what is stored while it is in the first-level cache.
template <class T, class JoinOne>
TIN_INLINE void pooled_rows(
    const T* branch, int64_t channels, const PoolArgs<T>& pool, int64_t begin, int64_t end, const JoinOne& join_one) {
  const int64_t blocks = pool_blocks(pool);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t frame = item / blocks, first = item % blocks * kPoolRows;
    const int64_t last = first + kPoolRows < pool.pixels ? first + kPoolRows : pool.pixels;
    Acc<T>* __restrict__ sums = pool.sums + item * pool.pooled;
    for (int64_t c = 0; c < pool.pooled; ++c) {
      sums[c] = 0;
    }
    const int64_t end_row = frame * pool.pixels + last;
    int64_t row = frame * pool.pixels + first;
    for (; row + 4 <= end_row; row += 4) { // rows a turn: sums are loaded and stored a quarter as often, and added in the same order
      for (int64_t j = 0; j < 4; ++j) {
        join_one(row + j);
      }
      const T* __restrict__ joined = branch + row * channels;
      for (int64_t c = 0; c < pool.pooled; ++c) {
        const Acc<T> sum = sums[c] + widen(joined[c]) + widen(joined[channels + c]);
        sums[c] = sum + widen(joined[2 * channels + c]) + widen(joined[3 * channels + c]);
      }
    }
    for (; row < end_row; ++row) {
      join_one(row);
      const T* __restrict__ joined = branch + row * channels;
      for (int64_t c = 0; c < pool.pooled; ++c) {
        sums[c] += widen(joined[c]);
      }
    }
  }
}

} // namespace tin
