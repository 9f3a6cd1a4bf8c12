// A bit an element, eight elements a byte: which elements of a join's result pass a gradient. For the CPU kernels, in each
// instruction set.
#pragma once

#include <type_traits>

#include "lanes_cpu.h"
#include "join.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tin {

// Eight bits, the first the lowest: which of eight results of a ReLU, as they are stored, pass a gradient.
template <class T>
TIN_INLINE uint8_t signs_of(const T* results) {
#if defined(__SSE2__)
  if constexpr (sizeof(T) == 2) { // what is not zero
    const __m128i zeros = _mm_cmpeq_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(results)), _mm_setzero_si128());
    return static_cast<uint8_t>(~_mm_movemask_epi8(_mm_packs_epi16(zeros, zeros)));
  }
#endif
  unsigned each[8], bits = 0;
  for (int j = 0; j < 8; ++j) { // without branches, which nobody foresees
    each[j] = passes(widen(results[j])) ? 1u << j : 0u;
  }
  for (int j = 0; j < 8; ++j) {
    bits |= each[j];
  }
  return static_cast<uint8_t>(bits);
}

#if defined(__AVX2__)
TIN_INLINE uint8_t signs_of(const float* results) {
  const __m256 zero = _mm256_setzero_ps();
  return static_cast<uint8_t>(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(results), zero, _CMP_NLE_UQ)));
}
#endif

// How many elements the functions "of several" take: as many bits are signs.
template <class T>
constexpr int kSigns = 8;

// branch = relu(branch + identity), and the signs.
template <class T>
TIN_INLINE void add_relu_of_several(T* branch, const T* identity, uint8_t* signs) {
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 2) {
    const __m256 sum = _mm256_add_ps(widen_eight(branch), widen_eight(identity));
    narrow_eight(_mm256_and_ps(sum, _mm256_cmp_ps(sum, _mm256_setzero_ps(), _CMP_NLE_UQ)), branch);
    *signs = signs_of(branch);
    return;
  }
#endif
  T results[8]; // apart from both, so that the loop vectorises
  for (int j = 0; j < 8; ++j) {
    narrow(relu(widen(branch[j]) + widen(identity[j])), results[j]);
  }
  memcpy(branch, results, sizeof(results));
  *signs = signs_of(results);
}

// out = grad where the sign's bit is set, else zero, for eight elements; out may be grad.
template <class T>
TIN_INLINE void pass_eight(T* out, const T* grad, uint8_t signs) {
#if defined(__SSE2__)
  if constexpr (sizeof(T) == 2) {
    const __m128i bit = _mm_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128);
    const __m128i set = _mm_cmpeq_epi16(_mm_and_si128(_mm_set1_epi16(signs), bit), bit);
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(grad));
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_and_si128(bits, set));
  }
#endif
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
  Bits bits[8];
  memcpy(bits, grad, sizeof(bits));
  for (int j = 0; j < 8; ++j) {
    bits[j] &= static_cast<Bits>(0) - static_cast<Bits>(signs >> j & 1);
  }
  memcpy(out, bits, sizeof(bits));
}

#if defined(__AVX2__) && !defined(__AVX512F__)
TIN_INLINE void add_relu_of_several(float* branch, const float* identity, uint8_t* signs) {
  const __m256 sum = _mm256_add_ps(_mm256_loadu_ps(branch), _mm256_loadu_ps(identity));
  const __m256 set = _mm256_cmp_ps(sum, _mm256_setzero_ps(), _CMP_NLE_UQ);
  _mm256_storeu_ps(branch, _mm256_and_ps(sum, set));
  *signs = static_cast<uint8_t>(_mm256_movemask_ps(set));
}
#endif

#if defined(__AVX2__)
TIN_INLINE void pass_eight(float* out, const float* grad, uint8_t signs) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(signs), bit), bit);
  _mm256_storeu_ps(out, _mm256_and_ps(_mm256_loadu_ps(grad), _mm256_castsi256_ps(set)));
}
#endif

// The same for kSigns<T> elements.
template <class T>
TIN_INLINE void pass_several(T* out, const T* grad, const uint8_t* signs) {
  pass_eight(out, grad, *signs);
}

// out = a + b where the bit is set, else zero, for kSigns<T> elements; out may be a.
template <class T>
TIN_INLINE void pass_sum_of_several(T* out, const T* a, const T* b, const uint8_t* signs) {
  T sums[8];
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 2) {
    narrow_eight(_mm256_add_ps(widen_eight(a), widen_eight(b)), sums);
    return pass_eight(out, sums, *signs);
  }
#endif
  for (int j = 0; j < 8; ++j) {
    narrow(widen(a[j]) + widen(b[j]), sums[j]);
  }
  pass_eight(out, sums, *signs);
}

#if defined(__AVX512F__)
template <>
constexpr int kSigns<float> = 16;

TIN_INLINE __mmask16 mask_of(const uint8_t* signs) {
  uint16_t bits;
  memcpy(&bits, signs, sizeof(bits));
  return static_cast<__mmask16>(bits);
}

TIN_INLINE void add_relu_of_several(float* branch, const float* identity, uint8_t* signs) {
  const __m512 sum = _mm512_add_ps(_mm512_loadu_ps(branch), _mm512_loadu_ps(identity));
  const __mmask16 mask = _mm512_cmp_ps_mask(sum, _mm512_setzero_ps(), _CMP_NLE_UQ);
  _mm512_storeu_ps(branch, _mm512_maskz_mov_ps(mask, sum));
  const uint16_t bits = static_cast<uint16_t>(mask);
  memcpy(signs, &bits, sizeof(bits));
}

// `value` where the bit is set, else zero.
TIN_INLINE __m512 passed_of(__m512 value, const uint8_t* signs) {
  return _mm512_and_ps(value, _mm512_castsi512_ps(_mm512_movm_epi32(mask_of(signs))));
}

TIN_INLINE void pass_several(float* out, const float* grad, const uint8_t* signs) {
  _mm512_storeu_ps(out, passed_of(_mm512_loadu_ps(grad), signs));
}

TIN_INLINE void pass_sum_of_several(float* out, const float* a, const float* b, const uint8_t* signs) {
  _mm512_storeu_ps(out, passed_of(_mm512_add_ps(_mm512_loadu_ps(a), _mm512_loadu_ps(b)), signs));
}
#endif

} // namespace tin
