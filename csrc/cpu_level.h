// Which instruction set the CPU kernels use: the best this processor has, or the lower one that the environment variable
// TIN_SIMD names. Kernels are compiled once for each, with TIN_LEVEL naming it.
#pragma once

#include <type_traits>

#include "real.h"

namespace tin {

enum class CpuLevel { generic, avx2, avx512 };

CpuLevel cpu_level();
const char* cpu_level_name();

// The kernels of one instruction set, for every type of elements.
template <template <class> class Kernels>
struct KernelTable {
  Kernels<float> float32;
  Kernels<double> float64;
  Kernels<Half> float16;
  Kernels<BFloat16> bfloat16;
};

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

// Pixels that a mean sums apart: of many, it then loses no more digits than of few.
constexpr int64_t kPoolRows = 64;

// Elements a thread should have at least, as at::internal::GRAIN_SIZE: below that, waking it costs more than it does.
constexpr int64_t kGrain = 32768;

// The same in items of so many elements.
TIN_INLINE int64_t grain_of(int64_t elements) {
  return kGrain > elements && elements > 0 ? kGrain / elements : 1;
}

} // namespace tin

#if defined(__x86_64__)
#define TIN_DECLARE_LEVELS(Table, name) extern const Table name##_generic, name##_avx2, name##_avx512
#define TIN_AT_LEVEL(name) at_cpu_level(name##_generic, name##_avx2, name##_avx512)
#else
#define TIN_DECLARE_LEVELS(Table, name) extern const Table name##_generic
#define TIN_AT_LEVEL(name) at_cpu_level(name##_generic, name##_generic, name##_generic)
#endif

#define TIN_PASTE_(a, b) a##b
#define TIN_PASTE(a, b) TIN_PASTE_(a, b)
// In the source that is compiled for TIN_LEVEL: its table, of the kernels that the template `kernels` has for a type.
#define TIN_DEFINE_LEVEL(Table, name, kernels)       \
  extern const Table TIN_PASTE(name##_, TIN_LEVEL);  \
  const Table TIN_PASTE(name##_, TIN_LEVEL) = {      \
      kernels<float>, kernels<double>, kernels<Half>, kernels<BFloat16>}
