// What interlace_cpu.cpp offers for one instruction set; register_cpu.cpp chooses among them at load time.
#pragma once

#include "interlace.h"

namespace tin {

// The part of the work that one call does: chunks [begin, end) of N*T*chunks. Chunk i is part i % chunks of frame
// i / chunks.
struct CpuGrid {
  int64_t chunks; // a frame
  int64_t chunk_rows; // rows a chunk, where a frame has several
  int64_t chunk_elements; // elements a chunk, where a frame is one row
};

inline CpuGrid cpu_grid(const Params& p) {
  // Small enough for a core's own cache with the frames it is made from, large enough to amortise the set-up.
  constexpr int64_t target = 8192;
  CpuGrid grid{};
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

template <class T>
struct CpuKernels {
  void (*forward)(const Params&, const CpuGrid&, const ForwardArgs<T>&, int64_t begin, int64_t end);
  void (*backward)(const Params&, const CpuGrid&, const BackwardArgs<T>&, int64_t begin, int64_t end);
  void (*finish)(const Params&, const FinishArgs<T>&, int64_t begin, int64_t end); // clips and groups, n * G + k
};

struct CpuLevel {
  const char* name;
  CpuKernels<float> float32;
  CpuKernels<double> float64;
  CpuKernels<Half> float16;
  CpuKernels<BFloat16> bfloat16;
};

extern const CpuLevel cpu_generic;
#if defined(__x86_64__)
extern const CpuLevel cpu_avx2;
extern const CpuLevel cpu_avx512;
#endif

} // namespace tin
