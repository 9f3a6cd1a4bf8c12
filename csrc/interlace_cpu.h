// What interlace_cpu.cpp offers for one instruction set; cpu_level.h chooses among them at load time.
#pragma once

#include "cpu_level.h"
#include "interlace.h"

namespace tin {

constexpr int64_t kGroups = 8; // that a row's own kernel takes at most

// How frames are cut into chunks; chunk i is part i % chunks of frame i / chunks.
struct CpuGrid {
  int64_t chunks; // a frame
  int64_t chunk_rows; // rows a chunk, where a frame has several
  int64_t chunk_elements; // elements a chunk, where a frame is one row
  bool large; // whether the output is more than the caches would keep
};

TIN_INLINE CpuGrid cpu_grid(const Params& p, int64_t element_size) {
  // Small enough for a core's own cache with the frames it is made from, large enough to amortise the set-up.
  const int64_t target = 32768 / element_size;
  // What is larger would leave the caches anyway before the next layer has read it (measured with a 1x1 convolution
  // behind the op: a tenth less time for both from 13 to 51 MB, no difference at 6 MB).
  constexpr int64_t large_from = int64_t(8) << 20;
  CpuGrid grid{};
  grid.large = p.clips * p.segments * p.frame * element_size >= large_from;
  if (p.rows == 1) {
    grid.chunk_elements = target;
    grid.chunks = (p.row + target - 1) / target;
  } else {
    grid.chunk_elements = p.row;
    grid.chunk_rows = p.row < target ? target / p.row : 1;
    grid.chunks = (p.rows + grid.chunk_rows - 1) / grid.chunk_rows;
  }
  return grid;
}

// Part of a frame, the unit of work.
struct Chunk {
  int64_t index; // of all N*T*chunks
  int64_t frame; // of all N*T
  int64_t n, t;
  int64_t row, rows; // its rows
  int64_t low, high; // its elements of a row
};

TIN_INLINE Chunk chunk_of(const Params& p, const CpuGrid& grid, int64_t index) {
  const int64_t frame = index / grid.chunks, part = index % grid.chunks;
  Chunk chunk{index, frame, frame / p.segments, frame % p.segments, 0, 1, 0, p.row};
  if (p.rows == 1) {
    chunk.low = part * grid.chunk_elements;
    chunk.high = chunk.low + grid.chunk_elements < p.row ? chunk.low + grid.chunk_elements : p.row;
  } else {
    chunk.row = part * grid.chunk_rows;
    chunk.rows = chunk.row + grid.chunk_rows < p.rows ? grid.chunk_rows : p.rows - chunk.row;
  }
  return chunk;
}

// What a chunk has of elements [from, to) of every row: `rows` stretches of `length`, none where that is nothing.
struct Block {
  int64_t first;
  int64_t rows;
  int64_t length;
};

TIN_INLINE Block block_of(const Params& p, const Chunk& chunk, int64_t from, int64_t to) {
  from = from > chunk.low ? from : chunk.low;
  to = to < chunk.high ? to : chunk.high;
  return {chunk.row * p.row + from, from < to ? chunk.rows : 0, to - from};
}

// The backward pass, with what a residual block wants beside the op's own.
template <class T>
struct CpuBackwardArgs {
  BackwardArgs<T> op;
  // `op.passed` is of every `stride`-th pixel alone, down and across a frame that is `width` pixels wide
  int64_t stride = 1, width = 1;
  // of the join that made x, a bit an element: where it is not set grad_x is zero; null: it is set everywhere. With signs or a
  // stride, rows are pixels, and both a row and its groups are multiples of 8 elements
  const uint8_t* signs = nullptr;
};

constexpr int64_t kPartBytes = 32768; // of a clip's groups that are shifted in place at a time

// The shift where x lies, in channels_last memory: rows are pixels. Part i % parts of clip i / parts is `part_rows` rows of every
// frame.
template <class T>
struct InPlaceArgs {
  T* x;
  const Acc<T>* offset;
  const Acc<T>* weight;
  T* kept; // what the groups were, dense; null where nobody asks
  int64_t part_rows;
};

template <class T>
struct CpuKernels {
  // chunks [begin, end) of N*T*chunks
  void (*forward)(const Params&, const CpuGrid&, const ForwardArgs<T>&, int64_t begin, int64_t end);
  void (*backward)(const Params&, const CpuGrid&, const CpuBackwardArgs<T>&, int64_t begin, int64_t end);
  // parts; the scratch is of one part's groups, null where they are kept
  void (*in_place)(const Params&, const InPlaceArgs<T>&, T* scratch, int64_t begin, int64_t end);
  void (*finish)(const Params&, const FinishArgs<T>&, int64_t begin, int64_t end); // clips and groups, n * G + k
};

using InterlaceTable = KernelTable<CpuKernels>;

TIN_DECLARE_LEVELS(InterlaceTable, interlace);

} // namespace tin
