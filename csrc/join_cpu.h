// What join_cpu.cpp offers for one instruction set. Work comes in blocks of kJoinBlock elements, rows in rows.
#pragma once

#include "cpu_level.h"
#include "join.h"

namespace tin {

constexpr int64_t kJoinBlock = 64; // elements; whole bytes of signs

// The means over a frame of a join's first channels, which the next split wants, taken in the join's own pass over
// channels_last memory. Item i is rows [kPoolRows * (i % blocks), ...) of frame i / blocks.
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

template <class T>
struct JoinKernels {
  void (*join)(const JoinArgs<T>&, int64_t begin, int64_t end); // blocks; with a fold, rows of `channels`
  void (*backward)(const JoinBackwardArgs<T>&, int64_t begin, int64_t end); // blocks
  // rows of `channels` elements where inner is 1, else planes of `inner`
  void (*norm_join)(const NormJoinArgs<T>&, int64_t begin, int64_t end);
  void (*norm_relu)(const NormJoinArgs<T>&, int64_t begin, int64_t end); // likewise; nothing is added
  // the same with sums; items
  void (*join_pooled)(const JoinArgs<T>&, const PoolArgs<T>&, int64_t begin, int64_t end);
  void (*norm_join_pooled)(const NormJoinArgs<T>&, const PoolArgs<T>&, int64_t begin, int64_t end);
  void (*means)(const PoolArgs<T>&, int64_t begin, int64_t end); // frames, when all their sums are there
};

using JoinTable = KernelTable<JoinKernels>;

TIN_DECLARE_LEVELS(JoinTable, join);

} // namespace tin
