// A bit an element, eight elements a byte: which elements of a join's result pass a gradient. For the CPU kernels, in each
// instruction set.
#pragma once

#include <type_traits>

#include "join.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tin {

// Eight bits, the first the lowest: which of eight results pass a gradient.
template <class A>
TIN_INLINE uint8_t signs_of(const A* results) {
  unsigned bits = 0;
  for (int j = 0; j < 8; ++j) {
    bits |= static_cast<unsigned>(passes(results[j])) << j;
  }
  return static_cast<uint8_t>(bits);
}

#if defined(__AVX2__)
TIN_INLINE uint8_t signs_of(const float* results) {
  const __m256 zero = _mm256_setzero_ps();
  return static_cast<uint8_t>(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(results), zero, _CMP_NLE_UQ)));
}
#endif

// out = grad where the sign's bit is set, else zero, for eight elements; out may be grad.
template <class T>
TIN_INLINE void pass_eight(T* out, const T* grad, uint8_t signs) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
  Bits bits[8];
  memcpy(bits, grad, sizeof(bits));
  for (int j = 0; j < 8; ++j) {
    bits[j] &= static_cast<Bits>(0) - static_cast<Bits>(signs >> j & 1);
  }
  memcpy(out, bits, sizeof(bits));
}

#if defined(__AVX2__)
TIN_INLINE void pass_eight(float* out, const float* grad, uint8_t signs) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(signs), bit), bit);
  _mm256_storeu_ps(out, _mm256_and_ps(_mm256_loadu_ps(grad), _mm256_castsi256_ps(set)));
}
#endif

// out = a + b where the bit is set, else zero, for eight elements; out may be a.
template <class T>
TIN_INLINE void pass_sum_of_eight(T* out, const T* a, const T* b, uint8_t signs) {
  T sums[8];
  for (int j = 0; j < 8; ++j) {
    narrow(widen(a[j]) + widen(b[j]), sums[j]);
  }
  pass_eight(out, sums, signs);
}

} // namespace tin
