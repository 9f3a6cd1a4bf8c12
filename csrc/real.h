// Number types of the kernels, the same on host and device: 16-bit floats as bits, with exact conversions to float.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#include <cuda_bf16.h>
// Internal linkage throughout: one source is compiled for several instruction sets, and the linker must not mix them.
#define TIN_INLINE static __host__ __device__ __forceinline__
#else
#define TIN_INLINE static inline __attribute__((always_inline))
#if defined(__F16C__)
#include <immintrin.h>
#endif
#endif

namespace tin {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

// The type that arithmetic on T runs in.
template <class T>
struct AccumulateIn {
  using type = float;
};
template <>
struct AccumulateIn<double> {
  using type = double;
};
template <class T>
using Acc = typename AccumulateIn<T>::type;

TIN_INLINE float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

TIN_INLINE uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

TIN_INLINE float widen(float value) {
  return value;
}

TIN_INLINE double widen(double value) {
  return value;
}

TIN_INLINE float widen(BFloat16 value) {
  return float_of_bits(static_cast<uint32_t>(value.bits) << 16);
}

TIN_INLINE float widen(Half value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#elif defined(__F16C__) && !defined(__CUDACC__)
  return _cvtsh_ss(value.bits);
#else
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t exponent = (value.bits >> 10) & 31u;
  const uint32_t mantissa = value.bits & 0x3ffu;
  if (exponent == 0) { // zero and subnormals: a multiple of 2^-24, exact in float
    const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) {
    return float_of_bits(sign | 0x7f800000u | (mantissa << 13));
  }
  return float_of_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
#endif
}

TIN_INLINE void narrow(float value, float& out) {
  out = value;
}

TIN_INLINE void narrow(double value, double& out) {
  out = value;
}

// Both round to nearest, ties to even, as PyTorch does.
TIN_INLINE void narrow(float value, BFloat16& out) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out.bits = static_cast<uint16_t>(value == value ? rounded : 0x7fc0u);
}

TIN_INLINE void narrow(float value, Half& out) {
#if defined(__CUDA_ARCH__)
  out.bits = __half_as_ushort(__float2half_rn(value));
#elif defined(__F16C__) && !defined(__CUDACC__)
  out.bits = static_cast<uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT));
#else
  const uint32_t bits = bits_of_float(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t result;
  if (magnitude > 0x7f800000u) {
    result = 0x7e00u;
  } else if (magnitude >= 0x47800000u) { // 65536 and above, infinity
    result = 0x7c00u;
  } else if (magnitude < 0x38800000u) { // below 2^-14: adding 0.5 rounds to a multiple of 2^-24
    result = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    result = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  out.bits = static_cast<uint16_t>(sign | result);
#endif
}

} // namespace tin
