// Defines the ops of the join (tin/joins.py says what they are for) and gives PyTorch their CPU kernels.
#include "join_cpu.h"
#include "pool_tensors.h"

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

std::tuple<Tensor, Tensor> add_relu_pool(
    Tensor branch, Tensor identity, OptionalTensor fold, bool with_signs, int64_t pooled) {
  check_pool(branch, pooled);
  const Tensor signs = with_signs ? new_signs(branch) : torch::stable::new_empty(branch, {0}, ScalarType::Byte);
  const Tensor means = new_means(branch, pooled);
  join_with(branch, identity, fold, with_signs ? &signs : nullptr, [&]<class T>(const JoinArgs<T>& args) {
    over_pooled(args, branch, means, pooled, kernels_of(T()).join_pooled);
  });
  return {signs, means};
}

} // namespace
} // namespace tin

STABLE_TORCH_LIBRARY_FRAGMENT(tin, m) {
  // `fold`: the identity's first channels, read instead of its own, where temporal_interlace_ has overwritten them
  m.def("add_relu_(Tensor(a!) branch, Tensor identity, Tensor? fold=None) -> ()");
  m.def("add_relu_signs_(Tensor(a!) branch, Tensor identity, Tensor? fold=None) -> Tensor");
  m.def("add_relu_backward(Tensor grad, Tensor signs) -> Tensor");
  // the same on channels_last memory, which also gives the means of the result's first `pooled` channels over H and W,
  // (N*T, pooled), in float32 at least; the signs are empty if not wanted
  m.def(
      "add_relu_pool_(Tensor(a!) branch, Tensor identity, Tensor? fold, bool signs, int pooled) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(tin, CPU, m) {
  m.impl("add_relu_", TORCH_BOX(&tin::add_relu));
  m.impl("add_relu_signs_", TORCH_BOX(&tin::add_relu_signs));
  m.impl("add_relu_backward", TORCH_BOX(&tin::add_relu_backward));
  m.impl("add_relu_pool_", TORCH_BOX(&tin::add_relu_pool));
}
