// Defines the ops of the shift and gives PyTorch their CPU kernels. Compiled for the plainest processor; it chooses the kernels.
#include <algorithm>
#include <memory>

#include "fold_cpu.h"
#include "interlace_cpu.h"
#include "tensors.h"

namespace tin {
namespace {

template <class T>
const CpuKernels<T>& kernels_of(T type) {
  return kernels_for(TIN_AT_LEVEL(interlace), type);
}

// kGrain in chunks.
int64_t grain(const Params& p, const CpuGrid& grid) {
  return std::max<int64_t>(1, kGrain * grid.chunks / p.frame);
}

template <class T, class Args, class Kernel>
void over_chunks(const Params& p, const Args& args, Kernel kernel) {
  const CpuGrid grid = cpu_grid(p, sizeof(T));
  torch::stable::parallel_for(
      0, p.clips * p.segments * grid.chunks, grain(p, grid),
      [&](int64_t begin, int64_t end) { kernel(p, grid, args, begin, end); });
}

Tensor forward(Tensor x, Tensor offset, Tensor weight, int64_t num_segments, std::optional<int64_t> group_size) {
  return forward_with(
      x, offset, weight, num_segments, group_size,
      []<class T>(const Params& p, const ForwardArgs<T>& args) { over_chunks<T>(p, args, kernels_of(T()).forward); });
}

Tensors backward(
    Tensor grad, Tensor x, Tensor offset, Tensor weight, int64_t num_segments, bool need_x, bool need_offset,
    bool need_weight, std::optional<int64_t> group_size, std::optional<Tensor> passed) {
  return backward_with(
      grad, x, offset, weight, num_segments, need_x, need_offset, need_weight, group_size, passed,
      []<class T>(const Params& p, const BackwardArgs<T>&) { return cpu_grid(p, sizeof(T)).chunks; },
      []<class T>(const Params& p, const BackwardArgs<T>& args) {
        over_chunks<T>(p, CpuBackwardArgs<T>{args}, kernels_of(T()).backward);
      },
      []<class T>(const Params& p, const FinishArgs<T>& args) {
        kernels_of(T()).finish(p, args, 0, p.clips * p.groups);
      });
}

void check_signs(const Tensor& grad, const OptionalTensor& signs) {
  STD_TORCH_CHECK(
      !signs || (signs->scalar_type() == ScalarType::Byte && signs->is_contiguous() &&
                 signs->numel() * 8 == grad.numel() && grad.size(1) % 8 == 0),
      "signs must be bytes, a bit for each element of the gradient, and its channels a multiple of 8, got ",
      shape_text(grad), signs ? shape_text(*signs) : "");
}

Tensors split_backward(
    Tensor grad_in, OptionalTensor kept, Tensor offset, Tensor weight, int64_t num_segments, int64_t group_size,
    OptionalTensor passed_in, int64_t stride, OptionalTensor signs) {
  STD_TORCH_CHECK(
      grad_in.dim() == 4 && offset.dim() == 2 && offset.size(1) <= kGroups && stride >= 1 && grad_in.size(1) > 1 &&
          grad_in.size(2) * grad_in.size(3) > 1,
      "grad must have several channels and pixels, the groups be at most ", kGroups, " and the stride at least 1, got ",
      shape_text(grad_in), ", ", shape_text(offset), " and ", stride);
  const Tensor grad = torch::stable::contiguous(grad_in, MemoryFormat::ChannelsLast);
  const auto picked = [&](int64_t pixels) { return (pixels + stride - 1) / stride; };
  STD_TORCH_CHECK(
      !passed_in || (passed_in->dim() == 4 && passed_in->scalar_type() == grad.scalar_type() &&
                     passed_in->size(0) == grad.size(0) && passed_in->size(1) == grad.size(1) &&
                     passed_in->size(2) == picked(grad.size(2)) && passed_in->size(3) == picked(grad.size(3))),
      "passed must be of every ", stride, "-th pixel of grad and of its dtype, got ",
      passed_in ? shape_text(*passed_in) : "", " for ", shape_text(grad));
  check_signs(grad, signs);
  STD_TORCH_CHECK(
      !signs || offset.size(1) * group_size % 8 == 0, "with signs the groups must be a multiple of 8 channels");
  const Tensor passed = passed_in ? torch::stable::contiguous(*passed_in, MemoryFormat::ChannelsLast) : grad;
  return backward_with(
      grad, kept ? *kept : grad, offset, weight, num_segments, true, kept.has_value(), kept.has_value(), group_size,
      std::nullopt,
      []<class T>(const Params& p, const BackwardArgs<T>&) { return cpu_grid(p, sizeof(T)).chunks; },
      [&]<class T>(const Params& p, const BackwardArgs<T>& args) {
        CpuBackwardArgs<T> all{args, stride, grad.size(3), signs ? data<uint8_t>(*signs) : nullptr};
        all.op.passed = passed_in ? data<T>(passed) : nullptr;
        over_chunks<T>(p, all, kernels_of(T()).backward);
      },
      []<class T>(const Params& p, const FinishArgs<T>& args) {
        kernels_of(T()).finish(p, args, 0, p.clips * p.groups);
      });
}

Tensor in_place(Tensor x, Tensor offset, Tensor weight, int64_t num_segments, int64_t group_size, bool keep) {
  STD_TORCH_CHECK(x.dim() == 4 && is_channels_last(x), "x must be (N*T, C, H, W) and channels_last, got ", shape_text(x));
  Params p = checked_params(x, offset, weight, num_segments, group_size);
  p.rows = x.size(2) * x.size(3);
  p.row = x.size(1);
  p.run = group_size;
  const int64_t fold = p.groups * p.run;
  const Tensor kept = keep ? torch::stable::empty_like(torch::stable::narrow(x, 1, 0, fold)) : torch::stable::new_empty(x, {0});
  if (x.numel() == 0) {
    return kept;
  }
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const Tensor wide_offset = widened<T>(offset), wide_weight = widened<T>(weight);
    const int64_t row = p.segments * fold; // elements of all frames' groups in one row
    const int64_t part_rows = std::clamp<int64_t>(kPartBytes / static_cast<int64_t>(sizeof(T)) / row, 1, p.rows);
    const InPlaceArgs<T> args{
        mutable_data<T>(x), data<Acc<T>>(wide_offset), data<Acc<T>>(wide_weight),
        keep ? mutable_data<T>(kept) : nullptr, part_rows};
    torch::stable::parallel_for(
        0, p.clips * ((p.rows + part_rows - 1) / part_rows), grain_of(part_rows * row), [&](int64_t begin, int64_t end) {
          const std::unique_ptr<T[]> scratch(keep ? nullptr : new T[part_rows * row]);
          kernels_of(T()).in_place(p, args, scratch.get(), begin, end);
        });
  });
  return kept;
}

std::tuple<Tensor, Tensor> take_fold(Tensor x, int64_t fold) {
  STD_TORCH_CHECK(
      x.dim() == 4 && is_channels_last(x) && x.numel() > 0 && fold >= 1 && fold <= x.size(1),
      "x must be channels_last and not empty, and fold from 1 to its channels, got ", shape_text(x), " and ", fold);
  const Tensor part = torch::stable::narrow(x, 1, 0, fold);
  const Tensor kept = torch::stable::empty_like(part);
  return with_type(x, [&](auto type) -> std::tuple<Tensor, Tensor> {
    using T = decltype(type);
    const Tensor means = torch::stable::new_empty(x, {x.size(0), fold}, accumulate_type<T>);
    const FoldArgs<T> args{
        data<T>(x), mutable_data<T>(kept), mutable_data<Acc<T>>(means), x.size(2) * x.size(3), x.size(1), fold};
    const int64_t items = x.size(0) * fold_blocks(args);
    torch::stable::parallel_for(0, items, grain_of(args.pixels * kFoldBlock), [&](int64_t begin, int64_t end) {
      kernels_for(TIN_AT_LEVEL(fold), type).copy(args, begin, end);
    });
    return {kept, means};
  });
}

void spread_means(Tensor x_grad, Tensor means_grad, OptionalTensor signs) {
  STD_TORCH_CHECK(
      x_grad.dim() == 4 && is_channels_last(x_grad) && means_grad.dim() == 2 && means_grad.is_contiguous() &&
          means_grad.size(0) == x_grad.size(0) && means_grad.size(1) <= x_grad.size(1),
      "x_grad must be channels_last, and means_grad of its frames, got ", shape_text(x_grad), " and ",
      shape_text(means_grad));
  check_signs(x_grad, signs);
  STD_TORCH_CHECK(!signs || means_grad.size(1) % 8 == 0, "with signs the means must be a multiple of 8 channels");
  with_type(x_grad, [&](auto type) {
    using T = decltype(type);
    STD_TORCH_CHECK(means_grad.scalar_type() == accumulate_type<T>, "means_grad must be float32, or float64 like x_grad");
    const int64_t pixels = x_grad.size(2) * x_grad.size(3), folded = means_grad.size(1);
    const std::unique_ptr<Acc<T>[]> shares(new Acc<T>[means_grad.numel()]);
    for (int64_t i = 0; i < means_grad.numel(); ++i) {
      shares[i] = data<Acc<T>>(means_grad)[i] / static_cast<Acc<T>>(pixels);
    }
    const SpreadArgs<T> args{
        mutable_data<T>(x_grad), shares.get(), signs ? data<uint8_t>(*signs) : nullptr,
        pixels, x_grad.size(1), folded};
    torch::stable::parallel_for(0, x_grad.size(0) * pixels, grain_of(folded), [&](int64_t begin, int64_t end) {
      kernels_for(TIN_AT_LEVEL(fold), type).spread(args, begin, end);
    });
  });
}

} // namespace
} // namespace tin

STABLE_TORCH_LIBRARY(tin, m) {
  m.def("temporal_interlace(Tensor x, Tensor offset, Tensor weight, int num_segments, int? group_size=None) -> Tensor");
  m.def(
      "temporal_interlace_backward(Tensor grad, Tensor x, Tensor offset, Tensor weight, int num_segments, bool need_x, "
      "bool need_offset, bool need_weight, int? group_size=None, Tensor? passed=None) -> (Tensor, Tensor, Tensor)");
  // temporal_interlace where a channels_last x lies; gives what the moved channels were, if they are to be kept
  m.def(
      "temporal_interlace_(Tensor(a!) x, Tensor offset, Tensor weight, int num_segments, int group_size, bool keep) -> Tensor");
  // a copy of the first `fold` channels of a channels_last x, and their means over H and W, (N*T, fold), in float32 at least
  m.def("take_fold(Tensor x, int fold) -> (Tensor, Tensor)");
  // adds to a channels_last gradient of x what the gradient of those means, (N*T, fold), says of each pixel; only where signs
  // are set, if there are any
  m.def("spread_means_(Tensor(a!) x_grad, Tensor means_grad, Tensor? signs=None) -> ()");
  // temporal_interlace_backward for a residual block of channels_last memory: `kept` is the moved channels of x, without which
  // there are no gradients of offset and weight; `passed`, of every `stride`-th pixel, is added; and where the join that made x
  // (add_relu_signs_) passes no gradient, that of x is zero
  m.def(
      "split_backward(Tensor grad, Tensor? kept, Tensor offset, Tensor weight, int num_segments, int group_size, "
      "Tensor? passed, int stride, Tensor? signs) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(tin, CPU, m) {
  m.impl("temporal_interlace", TORCH_BOX(&tin::forward));
  m.impl("temporal_interlace_backward", TORCH_BOX(&tin::backward));
  m.impl("temporal_interlace_", TORCH_BOX(&tin::in_place));
  m.impl("take_fold", TORCH_BOX(&tin::take_fold));
  m.impl("split_backward", TORCH_BOX(&tin::split_backward));
  m.impl("spread_means_", TORCH_BOX(&tin::spread_means));
}
