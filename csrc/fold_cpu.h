// What fold_cpu.cpp offers for one instruction set: a copy of x's first channels, and their means, in one pass over them; and
// the gradient of those means, added to the gradient of x.
#pragma once

#include <cstdint>

#include "cpu_level.h"
#include "real.h"

namespace tin {

constexpr int64_t kFoldBlock = 32; // channels of an item of a copy: item i is block i % blocks of frame i / blocks

// x is channels_last: `pixels` rows of `channels` elements a frame.
template <class T>
struct FoldArgs {
  const T* x;
  T* fold; // frames of `pixels` rows of `folded` elements
  Acc<T>* means; // (frames, folded)
  int64_t pixels, channels, folded;
};

template <class T>
struct SpreadArgs {
  T* x_grad; // channels_last, as x
  const Acc<T>* shares; // of each pixel in the gradient of the means, (frames, folded)
  const uint8_t* signs; // as in CpuBackwardArgs; null for none
  int64_t pixels, channels, folded;
};

template <class T>
TIN_INLINE int64_t fold_blocks(const FoldArgs<T>& args) {
  return (args.folded + kFoldBlock - 1) / kFoldBlock;
}

template <class T>
struct FoldKernels {
  void (*copy)(const FoldArgs<T>&, int64_t begin, int64_t end); // items
  void (*spread)(const SpreadArgs<T>&, int64_t begin, int64_t end); // rows: a pixel's channels
};

using FoldTable = KernelTable<FoldKernels>;

TIN_DECLARE_LEVELS(FoldTable, fold);

} // namespace tin
