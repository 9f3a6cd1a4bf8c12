// A part of a frame, made from other frames of its clip: the forward map, and its transpose with what a block adds to it.
// For interlace_cpu.cpp, in each instruction set: everything has internal linkage.
#pragma once

#include <type_traits>

#include "runs_cpu.h"
#include "signs_cpu.h"

namespace tin {
namespace {

// out = a + b; out may be a.
template <class T>
TIN_INLINE void add(T* out, const T* a, const T* b, int64_t length) {
  for (int64_t i = 0; i < length; ++i) {
    narrow(widen(a[i]) + widen(b[i]), out[i]);
  }
}

// What move_chunk makes a part of a frame from.
template <class T>
struct Movement {
  T* out; // the frame
  const T* clip; // first of the clip's frames that are read
  const T* own; // the frame that channels of no group are taken from
  const T* passed; // a frame that is added, null for none
  int64_t stride, width; // and of which pixels it is, as in CpuBackwardArgs
  const uint8_t* signs; // of the frame, likewise; null for none
  const T* after = nullptr; // groups that are read next, one row for each of the chunk's: asked for on the way past the caches
  int64_t after_row = 0;
};

// The row of `passed` that is added to a row of the frame; null for none.
template <class T>
TIN_INLINE const T* passed_row(const Params& p, const Movement<T>& m, int64_t row) {
  if (!m.passed || m.stride == 1) {
    return m.passed ? m.passed + row * p.row : nullptr;
  }
  const int64_t y = row / m.width, x = row % m.width;
  const bool picked = y % m.stride == 0 && x % m.stride == 0;
  const int64_t width = (m.width + m.stride - 1) / m.stride;
  return picked ? m.passed + (y / m.stride * width + x / m.stride) * p.row : nullptr;
}

// out = in + passed where `signs` are set; null stands for nothing to add, and for signs that are set. out may be in.
template <class T>
TIN_INLINE void pass(T* out, const T* in, const T* passed, const uint8_t* signs, int64_t length) {
  if (signs) {
    int64_t i = 0;
    for (; i + kSigns<T> <= length; i += kSigns<T>) {
      if (passed) {
        pass_sum_of_several(out + i, in + i, passed + i, signs + i / 8);
      } else {
        pass_several(out + i, in + i, signs + i / 8);
      }
    }
    for (; i < length; i += 8) { // half as many, where that is fewer
      T sums[8];
      for (int j = 0; j < 8; ++j) {
        narrow(passed ? widen(in[i + j]) + widen(passed[i + j]) : widen(in[i + j]), sums[j]);
      }
      pass_eight(out + i, sums, signs[i / 8]);
    }
  } else if (passed) {
    add(out, in, passed, length);
  } else if (out != in) {
    memcpy(out, in, static_cast<size_t>(length) * sizeof(T));
  }
}

// Group after group: for planes, and for more groups than move_rows takes.
template <class T, class TapsOf>
TIN_INLINE void move_groups(const Params& p, const Chunk& chunk, const Movement<T>& m, const TapsOf& taps_of) {
  for (int64_t k = 0; k < p.groups; ++k) {
    const Block block = block_of(p, chunk, k * p.run, (k + 1) * p.run);
    const Origin<T> from = origin_of(m.clip, p.frame, taps_of(k));
    for (int64_t r = 0; r < block.rows; ++r) {
      const int64_t at = block.first + r * p.row;
      move<0>(m.out + at, from, at, block.length);
      if (m.passed) {
        add(m.out + at, m.out + at, m.passed + at, block.length);
      }
    }
  }
  const Block rest = block_of(p, chunk, p.groups * p.run, p.row);
  for (int64_t r = 0; r < rest.rows; ++r) {
    const int64_t at = rest.first + r * p.row;
    if (m.passed) {
      add(m.out + at, m.own + at, m.passed + at, rest.length);
    } else {
      memcpy(m.out + at, m.own + at, static_cast<size_t>(rest.length) * sizeof(T));
    }
  }
}

// Row after row, so that everything that is read or written is met in the order it lies in.
template <int LENGTH, bool STREAM, bool LINE, class T, class TapsOf>
TIN_INLINE void move_rows(const Params& p, const Chunk& chunk, const Movement<T>& m, const TapsOf& taps_of) {
  constexpr int64_t size = sizeof(T);
  Origin<T> from[kGroups];
  for (int64_t k = 0; k < p.groups; ++k) {
    from[k] = origin_of(m.clip, p.frame, taps_of(k));
  }
  [[maybe_unused]] const std::conditional_t<LINE, Line<LENGTH, T>, NoLine> line(from, m.own);
  // a stream takes whole lines: the line in which the groups end is put together with what follows them
  alignas(kLine) T staged[STREAM ? kStage / size : 1];
  const int64_t fold = p.groups * p.run;
  const int64_t edge = STREAM ? (fold * size + kLine - 1) / kLine * kLine / size : fold;
  const bool far_apart = STREAM && p.run * size >= kLine / 2;
  for (int64_t r = chunk.row; r < chunk.row + chunk.rows; ++r) {
    const int64_t at = r * p.row;
    T* row = STREAM ? staged : m.out + at;
    if constexpr (LINE && STREAM) {
      line.stream(m.out, m.own, at);
      line.prefetch(at + kLinesAhead * p.row);
      stream_lines(m.out + at + edge, m.own + at + edge, p.row - edge);
      continue;
    } else if constexpr (LINE) {
      line.move(row, at);
    } else {
      for (int64_t k = 0; k < p.groups; ++k) {
        move<LENGTH>(row + k * p.run, from[k], at + k * p.run, p.run);
        if (far_apart) {
          const int64_t soon = at + kAhead * p.row + k * p.run;
          prefetch(from[k].near, soon, p.run);
          prefetch(from[k].far, soon, p.run);
        }
      }
    }
    if (STREAM) {
      prefetch(m.after, (r - chunk.row) * m.after_row, fold);
      memcpy(staged + fold, m.own + at + fold, static_cast<size_t>(edge - fold) * size);
      stream_lines(m.out + at, staged, edge);
      stream_lines(m.out + at + edge, m.own + at + edge, p.row - edge);
    } else {
      const T* passed = passed_row(p, m, r);
      const uint8_t* signs = m.signs ? m.signs + at / 8 : nullptr;
      pass(row, row, passed, signs, fold);
      pass(
          row + fold, m.own + at + fold, passed ? passed + fold : nullptr, signs ? signs + fold / 8 : nullptr,
          p.row - fold);
    }
  }
#if defined(__x86_64__)
  if (STREAM) {
    _mm_sfence();
  }
#endif
}

// Whether what is made of the chunk goes past the caches.
template <class T>
TIN_INLINE bool streams(const Params& p, const CpuGrid& grid, const Movement<T>& m) {
  const int64_t size = sizeof(T);
  const bool lines = p.row * size % kLine == 0 && reinterpret_cast<uintptr_t>(m.out) % kLine == 0;
  // With `passed` it is a network's gradient, whose next reader follows at once: the two are faster through the caches.
  return grid.large && !m.passed && !m.signs && lines && p.groups * p.run * size <= kStage;
}

template <class T, class TapsOf>
TIN_INLINE void move_chunk(
    const Params& p, const CpuGrid& grid, const Chunk& chunk, const Movement<T>& m, const TapsOf& taps_of) {
  if (p.rows == 1 || p.groups > kGroups) {
    return move_groups(p, chunk, m, taps_of);
  }
  const bool stream = streams(p, grid, m);
  with_length(p.run, [&](auto length) {
    constexpr int run = length.value;
    if constexpr (kLineGroups<run, T> != 0) {
      if (p.groups == kLineGroups<run, T>) {
        return stream ? move_rows<run, true, true>(p, chunk, m, taps_of)
                      : move_rows<run, false, true>(p, chunk, m, taps_of);
      }
    }
    return stream ? move_rows<run, true, false>(p, chunk, m, taps_of)
                  : move_rows<run, false, false>(p, chunk, m, taps_of);
  });
}

} // namespace
} // namespace tin
