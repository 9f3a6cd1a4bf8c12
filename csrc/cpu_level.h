// Which instruction set the CPU kernels use: the best this processor has, or the lower one that the environment variable
// TIN_SIMD names. Kernels are compiled once for each, with TIN_LEVEL naming it.
#pragma once

#include <type_traits>

#include "real.h"

namespace tin {

enum class CpuLevel { generic, avx2, avx512 };

CpuLevel cpu_level();
const char* cpu_level_name();

// The table of kernels for this processor.
template <class Table>
const Table& at_cpu_level([[maybe_unused]] const Table& generic, const Table& avx2, const Table& avx512) {
  switch (cpu_level()) {
    case CpuLevel::avx512: return avx512;
    case CpuLevel::avx2: return avx2;
    default: return generic;
  }
}

// A table's kernels for elements of type T.
template <class T, class Table>
const auto& kernels_for(const Table& table, T) {
  if constexpr (std::is_same_v<T, float>) {
    return table.float32;
  } else if constexpr (std::is_same_v<T, double>) {
    return table.float64;
  } else if constexpr (std::is_same_v<T, Half>) {
    return table.float16;
  } else {
    return table.bfloat16;
  }
}

} // namespace tin

#if defined(__x86_64__)
#define TIN_DECLARE_LEVELS(Table, name) extern const Table name##_generic, name##_avx2, name##_avx512
#define TIN_AT_LEVEL(name) at_cpu_level(name##_generic, name##_avx2, name##_avx512)
#else
#define TIN_DECLARE_LEVELS(Table, name) extern const Table name##_generic
#define TIN_AT_LEVEL(name) at_cpu_level(name##_generic, name##_generic, name##_generic)
#endif

#define TIN_JOIN_(a, b) a##b
#define TIN_JOIN(a, b) TIN_JOIN_(a, b)
