// The backward pass of rows in one go, with AVX-512: a row's groups gathered from other frames, added to what another
// reader passes, masked, written, and multiplied with x for the sums, while each is in a register. Every lane computes what
// move_cpu.h and add_products do, in their order: the bits are theirs.
// For interlace_cpu.cpp: everything has internal linkage.
#pragma once

#include "move_cpu.h"

namespace tin {
namespace {

// Of 16 running sums, which it overwrites.
template <class A>
TIN_INLINE A total(A* sums) {
  for (int step = 8; step > 0; step /= 2) {
    for (int j = 0; j < step; ++j) {
      sums[j] += sums[j + step];
    }
  }
  return sums[0];
}

// What the sums over a chunk's rows multiply grad with.
template <class T>
struct Products {
  const T* x; // its groups, from the chunk's first row; null for no sums
  int64_t row; // elements from a row to the next
  Acc<T>* sums; // (G, 2)
};

template <class T, class TapsOf>
TIN_INLINE bool gather_chunk(const Params&, const CpuGrid&, const Chunk&, const Movement<T>&, const Products<T>&, const TapsOf&) {
  return false; // not here: move_chunk, then add_products
}

#if defined(__AVX512F__)

// Of lanes [first, first + lanes), the others as zeros.
TIN_INLINE float total_of(__m512 sums, int first, int lanes) {
  alignas(64) float all[kLanes];
  float part[kLanes] = {};
  _mm512_store_ps(all, sums);
  for (int j = 0; j < lanes; ++j) {
    part[j] = all[first + j];
  }
  return total(part);
}

// Of all lanes, added up as `total` does.
TIN_INLINE float total_of(__m512 sums) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps(sums, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Both frames of the gradient that a group is gathered from: `read` for the sums, where the frame is in the clip, and `used` for
// the gradient, where its coefficient is not zero too.
template <class T>
struct Gathered {
  const T *near, *far; // null where not read
  bool near_used, far_used;
  __m512 near_scale, far_scale, fill;
};

template <class T>
TIN_INLINE Gathered<T> gathered(const T* clip, int64_t frame, const Taps<float>& taps) {
  return {
      taps.near.frame < 0 ? nullptr : clip + taps.near.frame * frame,
      taps.far.frame < 0 ? nullptr : clip + taps.far.frame * frame,
      taps.near.used, taps.far.used,
      _mm512_set1_ps(taps.near.scale), _mm512_set1_ps(taps.far.scale), _mm512_set1_ps(taps.fill)};
}

// What is done with 16 gathered elements at `at` of the frame; `passed` and `signs` are the row's, null for none.
template <class T>
TIN_INLINE void put(const Movement<T>& m, int64_t at, __m512 value, const T* passed, const uint8_t* signs) {
  if (passed) { // a sum of what was rounded to T
    value = _mm512_add_ps(widen_lanes(narrow_lanes(value, T{}), T{}), load_wide(passed));
  }
  if (signs) {
    value = passed_of(value, signs);
  }
  store_lanes(m.out + at, narrow_lanes(value, T{}));
}

// A row from where its groups end.
template <class T>
TIN_INLINE void put_rest(
    const Params& p, const Movement<T>& m, int64_t at, const T* passed, const uint8_t* signs, int64_t fold) {
  pass(
      m.out + at + fold, m.own + at + fold, passed ? passed + fold : nullptr, signs ? signs + fold / 8 : nullptr,
      p.row - fold);
}

// Groups of whole vectors, through the caches.
template <class T, class TapsOf>
TIN_INLINE void gather_vectors(
    const Params& p, const Chunk& chunk, const Movement<T>& m, const Products<T>& products, bool large,
    const TapsOf& taps_of) {
  Gathered<T> groups[kGroups];
  __m512 near_sums[kGroups], far_sums[kGroups];
  for (int64_t k = 0; k < p.groups; ++k) {
    groups[k] = gathered(m.clip, p.frame, taps_of(k));
    near_sums[k] = far_sums[k] = _mm512_setzero_ps();
  }
  for (int64_t r = 0; r < chunk.rows; ++r) {
    const int64_t at = (chunk.row + r) * p.row;
    const T* passed = passed_row(p, m, chunk.row + r);
    const uint8_t* signs = m.signs ? m.signs + at / 8 : nullptr;
    for (int64_t k = 0; k < p.groups; ++k) {
      const Gathered<T>& g = groups[k];
      __m512 near_sum = near_sums[k], far_sum = far_sums[k];
      for (int64_t i = k * p.run; i < (k + 1) * p.run; i += kLanes) {
        const __m512 near = g.near ? load_wide(g.near + at + i) : _mm512_setzero_ps();
        const __m512 far = g.far ? load_wide(g.far + at + i) : _mm512_setzero_ps();
        __m512 value = g.fill;
        if (g.near_used && g.far_used) {
          value = _mm512_add_ps(_mm512_mul_ps(g.near_scale, near), _mm512_mul_ps(g.far_scale, far));
        } else if (g.near_used) {
          value = _mm512_mul_ps(g.near_scale, near);
        } else if (g.far_used) {
          value = _mm512_mul_ps(g.far_scale, far);
        }
        put(m, at + i, value, passed ? passed + i : nullptr, signs ? signs + i / 8 : nullptr);
        if (products.x) {
          const __m512 x = load_wide(products.x + r * products.row + i);
          if (g.near) {
            near_sum = _mm512_add_ps(near_sum, _mm512_mul_ps(near, x));
          }
          if (g.far) {
            far_sum = _mm512_add_ps(far_sum, _mm512_mul_ps(far, x));
          }
        }
        if (large) {
          const int64_t soon = at + kAhead * p.row + i;
          prefetch(g.near, soon, kLanes);
          prefetch(g.far, soon, kLanes);
          prefetch(products.x, (r + kAhead) * products.row + i, kLanes);
        }
      }
      near_sums[k] = near_sum;
      far_sums[k] = far_sum;
    }
    put_rest(p, m, at, passed, signs, p.groups * p.run);
  }
  if (products.x) {
    for (int64_t k = 0; k < p.groups; ++k) {
      products.sums[2 * k] = total_of(near_sums[k]);
      products.sums[2 * k + 1] = total_of(far_sums[k]);
    }
  }
}

// The sums of one group of whole vectors, whose frames the pass before has brought into the core's own cache.
template <bool NEAR, bool FAR, class T>
TIN_INLINE void sum_vectors(
    const Params& p, const Chunk& chunk, const Products<T>& products, const Gathered<T>& g, int64_t k) {
  __m512 near_sum = _mm512_setzero_ps(), far_sum = _mm512_setzero_ps();
  for (int64_t r = 0; r < chunk.rows; ++r) {
    const int64_t at = (chunk.row + r) * p.row;
    for (int64_t i = k * p.run; i < (k + 1) * p.run; i += kLanes) {
      const __m512 x = load_wide(products.x + r * products.row + i);
      if (NEAR) {
        near_sum = _mm512_add_ps(near_sum, _mm512_mul_ps(load_wide(g.near + at + i), x));
      }
      if (FAR) {
        far_sum = _mm512_add_ps(far_sum, _mm512_mul_ps(load_wide(g.far + at + i), x));
      }
    }
  }
  products.sums[2 * k] = total_of(near_sum);
  products.sums[2 * k + 1] = total_of(far_sum);
}

// Groups of whole vectors, past the caches: row by row, then the sums (measured: asking for their x meanwhile takes a tenth off both).
template <class T, class TapsOf>
TIN_INLINE void stream_vectors(
    const Params& p, const CpuGrid& grid, const Chunk& chunk, const Movement<T>& m, const Products<T>& products,
    const TapsOf& taps_of) {
  Movement<T> asking = m;
  asking.after = products.x;
  asking.after_row = products.row;
  move_chunk(p, grid, chunk, asking, taps_of);
  if (!products.x) {
    return;
  }
  for (int64_t k = 0; k < p.groups; ++k) {
    const Gathered<T> g = gathered(m.clip, p.frame, taps_of(k));
    if (g.near && g.far) {
      sum_vectors<true, true>(p, chunk, products, g, k);
    } else if (g.near) {
      sum_vectors<true, false>(p, chunk, products, g, k);
    } else if (g.far) {
      sum_vectors<false, true>(p, chunk, products, g, k);
    } else {
      sum_vectors<false, false>(p, chunk, products, g, k);
    }
  }
}

// Groups that are one vector together, of `run` lanes each.
template <bool STREAM, int RUN, class T, class TapsOf>
TIN_INLINE void gather_line(
    const Params& p, const Chunk& chunk, const Movement<T>& m, const Products<T>& products, const TapsOf& taps_of) {
  constexpr int groups = kLanes / RUN;
  constexpr int64_t line = kLine / sizeof(T);
  const Lanes<T> none = lanes_of<T>(0, 0);
  const __m512i no_words = _mm512_setzero_si512();
  const T *near_from[groups], *far_from[groups];
  Lanes<T> near_lanes[groups], far_lanes[groups];
  __m512i near_read = no_words, far_read = no_words, near_used = no_words, far_used = no_words;
  alignas(64) float near_scales[kLanes], far_scales[kLanes], near_elses[kLanes], far_elses[kLanes];
  Frames<2 * groups, T> frames;
  for (int k = 0; k < groups; ++k) {
    const Taps<float> taps = taps_of(k);
    const Lanes<T> lanes = lanes_of<T>(k * RUN, RUN);
    const __m512i words = lanes_of<float>(k * RUN, RUN);
    near_lanes[k] = taps.near.frame < 0 ? none : lanes;
    far_lanes[k] = taps.far.frame < 0 ? none : lanes;
    near_from[k] = taps.near.frame < 0 ? m.own : m.clip + taps.near.frame * p.frame;
    far_from[k] = taps.far.frame < 0 ? m.own : m.clip + taps.far.frame * p.frame;
    frames.note(near_from[k]);
    frames.note(far_from[k]);
    near_read = _mm512_or_si512(near_read, taps.near.frame < 0 ? no_words : words);
    far_read = _mm512_or_si512(far_read, taps.far.frame < 0 ? no_words : words);
    near_used = _mm512_or_si512(near_used, taps.near.used ? words : no_words);
    far_used = _mm512_or_si512(far_used, taps.far.used ? words : no_words);
    for (int j = k * RUN; j < (k + 1) * RUN; ++j) {
      near_scales[j] = taps.near.used ? taps.near.scale : 1;
      far_scales[j] = taps.far.used ? taps.far.scale : 1;
      near_elses[j] = taps.near.used ? 0 : taps.far.used ? -0.0f : taps.fill; // -0 changes no sum
      far_elses[j] = taps.far.used ? 0 : -0.0f;
    }
  }
  const __m512 near_scale = _mm512_load_ps(near_scales), far_scale = _mm512_load_ps(far_scales);
  const __m512 near_else = _mm512_load_ps(near_elses), far_else = _mm512_load_ps(far_elses);
  const __mmask16 near_sum = _mm512_movepi32_mask(near_read), far_sum = _mm512_movepi32_mask(far_read);
  __m512 near_sums = _mm512_setzero_ps(), far_sums = _mm512_setzero_ps();
  const auto with = [](__m512 value, __m512i lanes, __m512 otherwise) { // zero in those lanes
    return _mm512_or_ps(_mm512_and_ps(value, _mm512_castsi512_ps(lanes)), otherwise);
  };
  for (int64_t r = 0; r < chunk.rows; ++r) {
    const int64_t at = (chunk.row + r) * p.row;
    const T* passed = passed_row(p, m, chunk.row + r);
    const uint8_t* signs = m.signs ? m.signs + at / 8 : nullptr;
    Lanes<T> near_bits = none, far_bits = none;
    for (int k = 0; k < groups; ++k) {
      near_bits = with_lanes(near_bits, near_from[k] + at, near_lanes[k]);
      far_bits = with_lanes(far_bits, far_from[k] + at, far_lanes[k]);
    }
    const __m512 near = widen_lanes(near_bits, T{}), far = widen_lanes(far_bits, T{});
    const __m512 value = _mm512_add_ps(
        _mm512_mul_ps(near_scale, with(near, near_used, near_else)),
        _mm512_mul_ps(far_scale, with(far, far_used, far_else)));
    if (STREAM) {
      stream_line(m.out + at, narrow_lanes(value, T{}), m.own + at);
    } else {
      put(m, at, value, passed, signs);
    }
    if (products.x) {
      const __m512 x = load_wide(products.x + r * products.row);
      near_sums = _mm512_mask_add_ps(near_sums, near_sum, near_sums, _mm512_mul_ps(near, x));
      far_sums = _mm512_mask_add_ps(far_sums, far_sum, far_sums, _mm512_mul_ps(far, x));
    }
    if (STREAM) {
      frames.prefetch(at + kLinesAhead * p.row);
      if (products.x) {
        __builtin_prefetch(products.x + (r + kLinesAhead) * products.row);
      }
      stream_lines(m.out + at + line, m.own + at + line, p.row - line);
    } else {
      put_rest(p, m, at, passed, signs, kLanes);
    }
  }
  if (products.x) {
    for (int k = 0; k < groups; ++k) {
      products.sums[2 * k] = total_of(near_sums, k * RUN, RUN);
      products.sums[2 * k + 1] = total_of(far_sums, k * RUN, RUN);
    }
  }
}

template <bool STREAM, class T, class TapsOf>
TIN_INLINE bool gather_rows(
    const Params& p, const CpuGrid& grid, const Chunk& chunk, const Movement<T>& m, const Products<T>& products, const TapsOf& taps_of) {
  if (p.run == 4 && p.groups == 4) {
    gather_line<STREAM, 4>(p, chunk, m, products, taps_of);
  } else if (p.run == 8 && p.groups == 2) {
    gather_line<STREAM, 8>(p, chunk, m, products, taps_of);
  } else if (p.run % kLanes == 0) {
    if (STREAM) {
      stream_vectors(p, grid, chunk, m, products, taps_of);
    } else {
      gather_vectors(p, chunk, m, products, grid.large, taps_of);
    }
  } else {
    return false;
  }
  if (STREAM) {
    _mm_sfence();
  }
  return true;
}

// Whether it was done here.
template <class T, class TapsOf>
  requires(sizeof(T) <= sizeof(float))
TIN_INLINE bool gather_chunk(
    const Params& p, const CpuGrid& grid, const Chunk& chunk, const Movement<T>& m, const Products<T>& products,
    const TapsOf& taps_of) {
  if (p.rows == 1 || p.groups > kGroups) {
    return false;
  }
  return streams(p, grid, m) ? gather_rows<true>(p, grid, chunk, m, products, taps_of)
                             : gather_rows<false>(p, grid, chunk, m, products, taps_of);
}

#endif

} // namespace
} // namespace tin
