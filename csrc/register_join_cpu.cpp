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

void norm_add_relu(
    Tensor branch, Tensor identity, Tensor mean, Tensor var, Tensor weight, Tensor bias, double eps,
    OptionalTensor fold) {
  norm_join_with(
      branch, identity, fold, mean, var, weight, bias, [&]<class T>(NormJoinArgs<T> args, const Norm<T>& norm) {
        using A = Acc<T>;
        const int64_t channels = args.channels;
        const std::unique_ptr<A[]> affine(new A[2 * channels]);
        for (int64_t c = 0; c < channels; ++c) {
          affine[c] = norm.weight[c] / std::sqrt(norm.var[c] + static_cast<A>(eps));
          affine[channels + c] = norm.bias[c] - norm.mean[c] * affine[c];
        }
        args.scale = affine.get();
        args.shift = affine.get() + channels;
        over_rows(args, args.inner == 1 ? channels : args.inner, kernels_of(T()).norm_join);
      });
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
}

STABLE_TORCH_LIBRARY_IMPL(tin, CPU, m) {
  m.impl("add_relu_", TORCH_BOX(&tin::add_relu));
  m.impl("add_relu_signs_", TORCH_BOX(&tin::add_relu_signs));
  m.impl("add_relu_backward", TORCH_BOX(&tin::add_relu_backward));
  m.impl("norm_add_relu_", TORCH_BOX(&tin::norm_add_relu));
}
