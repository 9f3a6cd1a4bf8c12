// Defines the ops of the join (tin/residual.py says what they are for) and gives PyTorch their CPU kernels.
#include <cmath>

#include "join_cpu.h"
#include "join_tensors.h"

namespace tin {
namespace {

template <class T>
const JoinKernels<T>& kernels_of(T type) {
  return kernels_for(TIN_AT_LEVEL(join), type);
}

template <class Args, class Kernel>
void over_blocks(const Args& args, Kernel kernel) {
  torch::stable::parallel_for(
      0, (args.count + kJoinBlock - 1) / kJoinBlock, kGrain / kJoinBlock,
      [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
}

template <class Args, class Kernel>
void over_rows(const Args& args, int64_t length, Kernel kernel) {
  torch::stable::parallel_for(
      0, args.count / length, kGrain / length + 1, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
}

template <class T>
void run_join(const JoinArgs<T>& args) {
  if (args.fold) {
    over_rows(args, args.channels, kernels_of(T()).join);
  } else {
    over_blocks(args, kernels_of(T()).join);
  }
}

void add_relu(Tensor branch, Tensor identity, OptionalTensor fold) {
  join_with(branch, identity, fold, nullptr, []<class T>(const JoinArgs<T>& args) { run_join(args); });
}

Tensor add_relu_signs(Tensor branch, Tensor identity, OptionalTensor fold) {
  const Tensor signs = new_signs(branch);
  join_with(branch, identity, fold, &signs, []<class T>(const JoinArgs<T>& args) { run_join(args); });
  return signs;
}

Tensor add_relu_backward(Tensor grad, Tensor signs) {
  return join_backward_with(grad, signs, []<class T>(const JoinBackwardArgs<T>& args) {
    over_blocks(args, kernels_of(T()).backward);
  });
}

// run(args with scale and shift)
template <class T, class Run>
void with_affine(NormJoinArgs<T> args, const Norm<T>& norm, double eps, const Run& run) {
  using A = Acc<T>;
  const int64_t channels = args.channels;
  const std::unique_ptr<A[]> affine(new A[2 * channels]);
  for (int64_t c = 0; c < channels; ++c) {
    affine[c] = norm.weight[c] / std::sqrt(norm.var[c] + static_cast<A>(eps));
    affine[channels + c] = norm.bias[c] - norm.mean[c] * affine[c];
  }
  args.scale = affine.get();
  args.shift = affine.get() + channels;
  run(args);
}

void norm_add_relu(
    Tensor branch, Tensor identity, Tensor mean, Tensor var, Tensor weight, Tensor bias, double eps,
    OptionalTensor fold) {
  norm_join_with(
      branch, identity, fold, mean, var, weight, bias, [&]<class T>(const NormJoinArgs<T>& args, const Norm<T>& norm) {
        with_affine(args, norm, eps, [](const NormJoinArgs<T>& args) {
          over_rows(args, args.inner == 1 ? args.channels : args.inner, kernels_of(T()).norm_join);
        });
      });
}

void norm_relu(Tensor x, Tensor mean, Tensor var, Tensor weight, Tensor bias, double eps) {
  norm_join_with(
      x, x, std::nullopt, mean, var, weight, bias, [&]<class T>(const NormJoinArgs<T>& args, const Norm<T>& norm) {
        with_affine(args, norm, eps, [](const NormJoinArgs<T>& args) {
          over_rows(args, args.inner == 1 ? args.channels : args.inner, kernels_of(T()).norm_relu);
        });
      });
}

std::tuple<Tensor, Tensor> add_relu_pool(
    Tensor branch, Tensor identity, OptionalTensor fold, std::vector<Tensor> norm, double eps, bool with_signs,
    int64_t pooled) {
  STD_TORCH_CHECK(
      branch.dim() == 4 && is_channels_last(branch) && branch.numel() > 0 && branch.size(1) % 8 == 0 && pooled >= 1 &&
          pooled <= branch.size(1) && (norm.empty() || norm.size() == 4) && !(with_signs && norm.size() == 4),
      "branch must be channels_last, not empty and of a multiple of 8 channels, pooled from 1 to its channels, norm empty "
      "or mean, var, weight and bias, and then without signs, got ",
      shape_text(branch), ", ", pooled, " and ", norm.size());
  const Tensor signs = with_signs ? new_signs(branch) : torch::stable::new_empty(branch, {0}, ScalarType::Byte);
  const int64_t frames = branch.size(0), pixels = branch.size(2) * branch.size(3);
  const ScalarType wide = branch.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  const Tensor means = torch::stable::new_empty(branch, {frames, pooled}, wide);
  const auto run = [&]<class T>(int64_t channels, const auto& kernel, T type) {
    PoolArgs<T> pool{nullptr, mutable_data<Acc<T>>(means), pixels, pooled};
    const int64_t items = frames * pool_blocks(pool);
    const Tensor sums = torch::stable::new_empty(means, {items, pooled});
    pool.sums = mutable_data<Acc<T>>(sums);
    torch::stable::parallel_for(0, items, grain_of(kPoolRows * channels), [&](int64_t begin, int64_t end) {
      kernel(pool, begin, end);
    });
    kernels_of(type).means(pool, 0, frames);
  };
  if (norm.empty()) {
    join_with(branch, identity, fold, with_signs ? &signs : nullptr, [&]<class T>(const JoinArgs<T>& args) {
      run(
          args.channels,
          [&](const PoolArgs<T>& pool, int64_t begin, int64_t end) {
            kernels_of(T()).join_pooled(args, pool, begin, end);
          },
          T());
    });
  } else {
    norm_join_with(
        branch, identity, fold, norm[0], norm[1], norm[2], norm[3],
        [&]<class T>(const NormJoinArgs<T>& args, const Norm<T>& values) {
          with_affine(args, values, eps, [&](const NormJoinArgs<T>& args) {
            run(
                args.channels,
                [&](const PoolArgs<T>& pool, int64_t begin, int64_t end) {
                  kernels_of(T()).norm_join_pooled(args, pool, begin, end);
                },
                T());
          });
        });
  }
  return {signs, means};
}

} // namespace
} // namespace tin

STABLE_TORCH_LIBRARY_FRAGMENT(tin, m) {
  // `fold`: the identity's first channels, read instead of its own, where temporal_interlace_into has overwritten them
  m.def("add_relu_(Tensor(a!) branch, Tensor identity, Tensor? fold=None) -> ()");
  m.def("add_relu_signs_(Tensor(a!) branch, Tensor identity, Tensor? fold=None) -> Tensor");
  m.def("add_relu_backward(Tensor grad, Tensor signs) -> Tensor");
  m.def(
      "norm_add_relu_(Tensor(a!) branch, Tensor identity, Tensor mean, Tensor var, Tensor weight, Tensor bias, "
      "float eps, Tensor? fold=None) -> ()");
  m.def("norm_relu_(Tensor(a!) x, Tensor mean, Tensor var, Tensor weight, Tensor bias, float eps) -> ()");
  // one of the joins, on channels_last memory, which also gives the means of the result's first `pooled` channels over H and W,
  // (N*T, pooled), in float32 at least. `norm` is none, or mean, var, weight and bias; the signs are empty if not wanted
  m.def(
      "add_relu_pool_(Tensor(a!) branch, Tensor identity, Tensor? fold, Tensor[] norm, float eps, bool signs, int pooled) "
      "-> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(tin, CPU, m) {
  m.impl("add_relu_", TORCH_BOX(&tin::add_relu));
  m.impl("add_relu_signs_", TORCH_BOX(&tin::add_relu_signs));
  m.impl("add_relu_backward", TORCH_BOX(&tin::add_relu_backward));
  m.impl("norm_add_relu_", TORCH_BOX(&tin::norm_add_relu));
  m.impl("norm_relu_", TORCH_BOX(&tin::norm_relu));
  m.impl("add_relu_pool_", TORCH_BOX(&tin::add_relu_pool));
}
