// Elements as floats in a register: eight of a half type with AVX2, sixteen of any with AVX-512. Compilers take the rounding apart
// element by element, where they see through it at all. For the CPU kernels, in each instruction set.
#pragma once

#include "real.h"

#if defined(__AVX2__)
#include <immintrin.h>

namespace tin {

TIN_INLINE __m256 widen_eight(const BFloat16* in) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

TIN_INLINE __m256 widen_eight(const Half* in) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
}

// The bits that `narrow` makes of each.
TIN_INLINE __m128i narrowed_bits(__m256 values, BFloat16) {
  const __m256i bits = _mm256_castps_si256(values), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  const __m256i chosen = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(chosen), _mm256_extracti128_si256(chosen, 1));
}

TIN_INLINE __m128i narrowed_bits(__m256 values, Half) {
  return _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
}

template <class T>
TIN_INLINE void narrow_eight(__m256 values, T* out) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), narrowed_bits(values, T{}));
}

#if defined(__AVX512F__)

constexpr int kLanes = 16;

// As many elements as they lie in memory.
template <class T>
struct LaneBits {
  using type = __m256i;
};
template <>
struct LaneBits<float> {
  using type = __m512i;
};
template <class T>
using Lanes = typename LaneBits<T>::type;

TIN_INLINE __m512i load_lanes(const float* in) {
  return _mm512_loadu_si512(in);
}

template <class T>
TIN_INLINE __m256i load_lanes(const T* in) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
}

TIN_INLINE void store_lanes(float* out, __m512i lanes) {
  _mm512_storeu_si512(out, lanes);
}

template <class T>
TIN_INLINE void store_lanes(T* out, __m256i lanes) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), lanes);
}

TIN_INLINE __m512 widen_lanes(__m512i lanes, float) {
  return _mm512_castsi512_ps(lanes);
}

TIN_INLINE __m512 widen_lanes(__m256i lanes, BFloat16) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(lanes), 16));
}

TIN_INLINE __m512 widen_lanes(__m256i lanes, Half) {
  return _mm512_cvtph_ps(lanes);
}

template <class T>
TIN_INLINE __m512 load_wide(const T* in) {
  return widen_lanes(load_lanes(in), T{});
}

// The bits that `narrow` makes of each.
TIN_INLINE __m512i narrow_lanes(__m512 values, float) {
  return _mm512_castps_si512(values);
}

TIN_INLINE __m256i narrow_lanes(__m512 values, BFloat16) {
  const __m512i bits = _mm512_castps_si512(values), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0)));
}

TIN_INLINE __m256i narrow_lanes(__m512 values, Half) {
  return _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
}

// Lanes [first, first + count), all bits set, and no others.
template <class T>
TIN_INLINE Lanes<T> lanes_of(int first, int count) {
  const __mmask16 mask = static_cast<__mmask16>(((1u << count) - 1) << first);
  if constexpr (sizeof(T) == 2) {
    return _mm256_movm_epi16(mask);
  } else {
    return _mm512_movm_epi32(mask);
  }
}

// into | (from & lanes): a masked load would do, but waits for its mask (measured: this halves a join's backward pass).
constexpr int kAOrBAndC = 0xf8;

TIN_INLINE __m512i with_lanes(__m512i into, const float* from, __m512i lanes) {
  return _mm512_ternarylogic_epi32(into, _mm512_loadu_si512(from), lanes, kAOrBAndC);
}

template <class T>
TIN_INLINE __m256i with_lanes(__m256i into, const T* from, __m256i lanes) {
  return _mm256_ternarylogic_epi32(into, load_lanes(from), lanes, kAOrBAndC);
}

#endif

} // namespace tin
#endif
