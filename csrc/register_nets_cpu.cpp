// Defines the ops of TIN's small networks and gives PyTorch their CPU kernels: a clip is a block of one thread.
#include "nets_tensors.h"

namespace tin {
namespace {

Tensors nets(Tensor pooled, std::vector<Tensor> weights, int64_t num_segments) {
  return nets_with(pooled, weights, num_segments, []<class A>(const NetsArgs<A>& args) {
    torch::stable::parallel_for(0, args.clips, 8, [&](int64_t begin, int64_t end) {
      std::vector<A> parts(args.segments * 3 * kNetParts);
      for (int64_t n = begin; n < end; ++n) {
        nets_parts(args, n, 0, 1, parts.data());
        nets_gains(args, n, 0, 1, parts.data());
        nets_hidden(args, n, 0, 1);
        nets_offsets(args, n, 0, 1);
      }
    });
  });
}

std::vector<Tensor> nets_backward(
    Tensor pooled, std::vector<Tensor> weights, Tensor offset, Tensor weight, Tensor state, Tensor grad_offset,
    Tensor grad_weight, int64_t num_segments) {
  return nets_backward_with(
      pooled, weights, offset, weight, state, grad_offset, grad_weight, num_segments,
      []<class A>(const NetsBackwardArgs<A>& args) {
        torch::stable::parallel_for(0, args.clips, 8, [&](int64_t begin, int64_t end) {
          for (int64_t n = begin; n < end; ++n) {
            nets_ends(args, n, 0, 1);
            nets_hidden_flow(args, n, 0, 1);
            nets_offset_flow(args, n, 0, 1);
            nets_pooled_flow(args, n, 0, 1);
          }
        });
        torch::stable::parallel_for(0, nets_items(args), 64, [&](int64_t begin, int64_t end) {
          for (int64_t item = begin; item < end; ++item) {
            nets_weight_grads(args, item);
          }
        });
      });
}

} // namespace
} // namespace tin

STABLE_TORCH_LIBRARY_FRAGMENT(tin, m) {
  m.def("interlace_nets(Tensor pooled, Tensor[] weights, int num_segments) -> (Tensor, Tensor, Tensor)");
  m.def(
      "interlace_nets_backward(Tensor pooled, Tensor[] weights, Tensor offset, Tensor weight, Tensor state, "
      "Tensor grad_offset, Tensor grad_weight, int num_segments) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(tin, CPU, m) {
  m.impl("interlace_nets", TORCH_BOX(&tin::nets));
  m.impl("interlace_nets_backward", TORCH_BOX(&tin::nets_backward));
}
