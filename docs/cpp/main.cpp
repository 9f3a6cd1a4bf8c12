// Runs a package of `tin-cli export --format aoti` without Python: reads clips, prints the best classes of each.
//
//   tin_run tin.pt2 clips.f32 libtin_cpu.so [libtin_cuda.so]
//
// clips.f32: N clips of T normalised frames, float32 (N, T, 3, H, W) as they lie in memory.
#include <ATen/ATen.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// The library's static initialisers register the op with PyTorch, which must know it before the package is loaded.
void load_op(const char* library) {
  if (!dlopen(library, RTLD_NOW | RTLD_GLOBAL)) {
    throw std::runtime_error(dlerror());
  }
}

std::vector<float> read_floats(const char* path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) {
    throw std::runtime_error(std::string("cannot open ") + path);
  }
  std::vector<float> values(static_cast<size_t>(file.tellg()) / sizeof(float));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  return values;
}

void run(int argc, char** argv) {
  for (int i = 3; i < argc; ++i) {
    load_op(argv[i]);
  }
  torch::inductor::AOTIModelPackageLoader loader(argv[1]);
  const auto about = loader.get_metadata();
  const auto number = [&](const char* key) { return std::stoll(about.at(key)); };
  const int64_t segments = number("num_segments"), height = number("height"), width = number("width");

  std::vector<float> values = read_floats(argv[2]);
  const int64_t clip = segments * 3 * height * width, clips = static_cast<int64_t>(values.size()) / clip;
  if (clips == 0 || clips * clip != static_cast<int64_t>(values.size())) {
    throw std::runtime_error(
        std::string(argv[2]) + " holds no whole number of clips of " + std::to_string(segments) + " frames of 3x" +
        std::to_string(height) + "x" + std::to_string(width));
  }
  at::Tensor frames = at::from_blob(values.data(), {clips, segments, 3, height, width}, at::kFloat);
  frames = frames.to(at::Device(about.at("AOTI_DEVICE_KEY")));

  const at::Tensor logits = loader.run({frames})[0].cpu();
  const auto [scores, classes] = logits.softmax(1).topk(std::min<int64_t>(5, logits.size(1)), 1);
  for (int64_t n = 0; n < clips; ++n) {
    std::printf("clip %lld\n", static_cast<long long>(n));
    for (int64_t k = 0; k < scores.size(1); ++k) {
      std::printf("  %.6f  class %lld\n", scores[n][k].item<float>(), static_cast<long long>(classes[n][k].item<int64_t>()));
    }
  }
}

} // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s PACKAGE.pt2 CLIPS.f32 LIBRARY...\n", argv[0]);
    return 2;
  }
  try {
    run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
  return 0;
}
