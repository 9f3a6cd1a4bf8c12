// Finds the processor's instruction set, once.
#include "cpu_level.h"

#include <cstdlib>
#include <cstring>

namespace tin {
namespace {

CpuLevel best_level() {
  const char* wanted = std::getenv("TIN_SIMD");
  [[maybe_unused]] const auto may_use = [&](const char* name) { return !wanted || std::strcmp(wanted, name) == 0; };
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && may_use("avx512")) {
    return CpuLevel::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
      may_use("avx2")) {
    return CpuLevel::avx2;
  }
#endif
  return CpuLevel::generic;
}

} // namespace

CpuLevel cpu_level() {
  static const CpuLevel chosen = best_level();
  return chosen;
}

const char* cpu_level_name() {
  constexpr const char* names[] = {"generic", "avx2", "avx512"};
  return names[static_cast<int>(cpu_level())];
}

} // namespace tin

extern "C" __attribute__((visibility("default"))) const char* tin_simd_level() {
  return tin::cpu_level_name();
}
