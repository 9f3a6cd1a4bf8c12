// What join_cpu.cpp offers for one instruction set. Work comes in blocks of kJoinBlock elements, rows in rows.
#pragma once

#include "cpu_level.h"
#include "join.h"

namespace tin {

constexpr int64_t kJoinBlock = 64; // elements; whole bytes of signs

template <class T>
struct JoinKernels {
  void (*join)(const JoinArgs<T>&, int64_t begin, int64_t end); // blocks; with a fold, rows of `channels`
  void (*backward)(const JoinBackwardArgs<T>&, int64_t begin, int64_t end); // blocks
  // rows of `channels` elements where inner is 1, else planes of `inner`
  void (*norm_join)(const NormJoinArgs<T>&, int64_t begin, int64_t end);
};

using JoinTable = KernelTable<JoinKernels>;

TIN_DECLARE_LEVELS(JoinTable, join);

} // namespace tin
