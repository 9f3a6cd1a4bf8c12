// What join_cpu.cpp offers for one instruction set. Work comes in blocks of kJoinBlock elements, rows in rows.
#pragma once

#include "cpu_level.h"
#include "join.h"
#include "pool_cpu.h"

namespace tin {

constexpr int64_t kJoinBlock = 64; // elements; whole bytes of signs

template <class T>
struct JoinKernels {
  void (*join)(const JoinArgs<T>&, int64_t begin, int64_t end); // blocks; with a fold, rows of `channels`
  void (*backward)(const JoinBackwardArgs<T>&, int64_t begin, int64_t end); // blocks
  void (*join_pooled)(const JoinArgs<T>&, const PoolArgs<T>&, int64_t begin, int64_t end); // items; with sums
  void (*means)(const PoolArgs<T>&, int64_t begin, int64_t end); // frames, when all their sums are there
};

using JoinTable = KernelTable<JoinKernels>;

TIN_DECLARE_LEVELS(JoinTable, join);

} // namespace tin
