// What a group's run in a row is made from, and the ways to make it: element by element, or a line of several groups at once.
// For interlace_cpu.cpp, in each instruction set: everything has internal linkage.
#pragma once

#include "interlace_cpu.h"
#include "lanes_cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tin {
namespace {

// out = near_scale * near + far_scale * far over `length` elements; LENGTH, when not 0, says so at compile time.
template <int LENGTH, class T>
TIN_INLINE void combine(
    T* __restrict__ out, const T* __restrict__ near, const T* __restrict__ far, Acc<T> near_scale, Acc<T> far_scale,
    int64_t length) {
  for (int64_t i = 0; i < (LENGTH ? LENGTH : length); ++i) {
    narrow(near_scale * widen(near[i]) + far_scale * widen(far[i]), out[i]);
  }
}

template <int LENGTH, class T>
TIN_INLINE void scale(T* __restrict__ out, const T* __restrict__ in, Acc<T> scale, int64_t length) {
  for (int64_t i = 0; i < (LENGTH ? LENGTH : length); ++i) {
    narrow(scale * widen(in[i]), out[i]);
  }
}

template <int LENGTH, class T>
TIN_INLINE void fill(T* out, Acc<T> value, int64_t length) {
  T narrowed;
  narrow(value, narrowed);
  for (int64_t i = 0; i < (LENGTH ? LENGTH : length); ++i) {
    out[i] = narrowed;
  }
}

template <int N>
struct Length {
  static constexpr int value = N;
};

// Calls body(Length<N>) with the length as a compile-time number where it is one of the usual ones.
template <class Body>
TIN_INLINE void with_length(int64_t length, const Body& body) {
  switch (length) {
    case 4: return body(Length<4>{});
    case 8: return body(Length<8>{});
    case 16: return body(Length<16>{});
    case 32: return body(Length<32>{});
    default: return body(Length<0>{});
  }
}

// Where a group of an output frame comes from: both frames, `near` alone, or none and `fill`.
template <class T>
struct Origin {
  const T* near;
  const T* far;
  Acc<T> near_scale, far_scale, fill;
};

template <class T>
TIN_INLINE Origin<T> origin_of(const T* clip, int64_t frame, const Taps<Acc<T>>& taps) {
  const T* near = taps.near.used ? clip + taps.near.frame * frame : nullptr;
  const T* far = taps.far.used ? clip + taps.far.frame * frame : nullptr;
  if (!near) {
    return {far, nullptr, taps.far.scale, 0, taps.fill};
  }
  return {near, far, taps.near.scale, taps.far.scale, taps.fill};
}

template <int LENGTH, class T>
TIN_INLINE void move(T* out, const Origin<T>& from, int64_t at, int64_t length) {
  if (from.far) {
    combine<LENGTH>(out, from.near + at, from.far + at, from.near_scale, from.far_scale, length);
  } else if (from.near) {
    scale<LENGTH>(out, from.near + at, from.near_scale, length);
  } else {
    fill<LENGTH>(out, from.fill, length);
  }
}

constexpr int64_t kLine = 64; // bytes of a cache line
constexpr int64_t kAhead = 8; // rows
constexpr int64_t kLinesAhead = 16; // rows, where a row's groups are one line
constexpr int64_t kStage = 4096; // bytes of groups in a row that it takes at most when it streams

// Asks for elements that a later row will want: processors do not foresee a few lines in every row of many frames
// (measured: a quarter less time for 51 MB of 256 channels in float32, half in bfloat16, but a loss where a group is a quarter of a line).
template <class T>
TIN_INLINE void prefetch(const T* from, int64_t at, int64_t length) {
  if (from) {
    const char* first = reinterpret_cast<const char*>(from) + at * static_cast<int64_t>(sizeof(T));
    for (int64_t i = 0; i < length * static_cast<int64_t>(sizeof(T)); i += kLine) {
      __builtin_prefetch(first + i);
    }
  }
}

// Writes whole lines past the caches, which then need not read what is about to be overwritten.
template <class T>
TIN_INLINE void stream_lines(T* to, const T* from, int64_t length) {
  char* out = reinterpret_cast<char*>(to);
  const char* in = reinterpret_cast<const char*>(from);
  const int64_t bytes = length * static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < bytes; i += kLine) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + i), _mm512_loadu_si512(in + i));
#elif defined(__x86_64__)
    for (int j = 0; j < kLine; j += 16) {
      const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i + j));
      _mm_stream_si128(reinterpret_cast<__m128i*>(out + i + j), part);
    }
#else
    memcpy(out + i, in + i, kLine);
#endif
  }
}

// A row of all groups, made in a register where together they are a register's lanes. A line put together of pieces in memory could
// not be read back, for a stream or a sum, before the pieces are in the cache.
struct NoLine {
  template <class... Args>
  __attribute__((always_inline)) NoLine(const Args&...) {}
};

template <int LENGTH, class T>
constexpr int kLineGroups = 0; // that are a register's lanes together; 0: none

template <int LENGTH, class T>
struct Line : NoLine {};

#if defined(__AVX512F__)
template <class T>
constexpr int kLineGroups<4, T> = sizeof(T) == 8 ? 0 : 4;
template <class T>
constexpr int kLineGroups<8, T> = sizeof(T) == 8 ? 0 : 2;

// Frames that are read, each once, to ask for their later rows: one line of each, which no processor foresees (measured: half
// the time).
template <int MOST, class T>
struct Frames {
  const T* frames[MOST];
  int count = 0;

  __attribute__((always_inline)) void note(const T* frame) {
    for (int i = 0; i < count; ++i) {
      if (frames[i] == frame) {
        return;
      }
    }
    frames[count++] = frame;
  }

  __attribute__((always_inline)) void prefetch(int64_t at) const {
    for (int i = 0; i < count; ++i) {
      __builtin_prefetch(frames[i] + at);
    }
  }
};

// Writes the line that begins with `lanes` and goes on as `own` does past the caches.
TIN_INLINE void stream_line(float* out, __m512i lanes, const float*) {
  _mm512_stream_si512(reinterpret_cast<__m512i*>(out), lanes);
}

template <class T>
TIN_INLINE void stream_line(T* out, __m256i lanes, const T* own) {
  const __m512i line = _mm512_inserti64x4(_mm512_castsi256_si512(lanes), load_lanes(own + kLanes), 1);
  _mm512_stream_si512(reinterpret_cast<__m512i*>(out), line);
}

template <int LENGTH, class T>
  requires(kLineGroups<LENGTH, T> != 0)
struct Line<LENGTH, T> {
  static constexpr int groups = kLineGroups<LENGTH, T>;
  Lanes<T> near_lanes[groups], far_lanes[groups];
  const T *near_frame[groups], *far_frame[groups];
  Lanes<T> near_else, far_else; // zero in the lanes that are read
  __m512 near_scale, far_scale;
  Frames<2 * groups, T> frames;

  // What a group does not read stands for its fill, and for -0, which changes no sum.
  __attribute__((always_inline)) Line(const Origin<T>* from, const T* any) {
    alignas(64) float near_elses[kLanes], far_elses[kLanes], near_scales[kLanes], far_scales[kLanes];
    const Lanes<T> none = lanes_of<T>(0, 0);
    for (int k = 0; k < groups; ++k) {
      const Lanes<T> lanes = lanes_of<T>(k * LENGTH, LENGTH);
      near_lanes[k] = from[k].near ? lanes : none;
      far_lanes[k] = from[k].far ? lanes : none;
      near_frame[k] = from[k].near ? from[k].near : any;
      far_frame[k] = from[k].far ? from[k].far : any;
      frames.note(near_frame[k]);
      frames.note(far_frame[k]);
      for (int j = k * LENGTH; j < (k + 1) * LENGTH; ++j) {
        near_elses[j] = from[k].near ? 0 : from[k].fill;
        far_elses[j] = from[k].far ? 0 : -0.0f;
        near_scales[j] = from[k].near ? from[k].near_scale : 1;
        far_scales[j] = from[k].far ? from[k].far_scale : 1;
      }
    }
    near_else = narrow_lanes(_mm512_load_ps(near_elses), T{});
    far_else = narrow_lanes(_mm512_load_ps(far_elses), T{});
    near_scale = _mm512_load_ps(near_scales);
    far_scale = _mm512_load_ps(far_scales);
  }

  __attribute__((always_inline)) void prefetch(int64_t at) const {
    frames.prefetch(at);
  }

  __attribute__((always_inline)) Lanes<T> made(int64_t at) const {
    Lanes<T> near = near_else, far = far_else;
    for (int k = 0; k < groups; ++k) {
      near = with_lanes(near, near_frame[k] + at, near_lanes[k]);
      far = with_lanes(far, far_frame[k] + at, far_lanes[k]);
    }
    const __m512 sum = _mm512_add_ps(
        _mm512_mul_ps(near_scale, widen_lanes(near, T{})), _mm512_mul_ps(far_scale, widen_lanes(far, T{})));
    return narrow_lanes(sum, T{});
  }

  __attribute__((always_inline)) void move(T* out, int64_t at) const {
    store_lanes(out, made(at));
  }

  // And what follows in the line, as `own` has it.
  __attribute__((always_inline)) void stream(T* out, const T* own, int64_t at) const {
    stream_line(out + at, made(at), own + at);
  }
};
#endif

} // namespace
} // namespace tin
