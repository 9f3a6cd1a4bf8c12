// Defines the ops of batch norms (tin/norms.py says what they are for) and gives PyTorch their CPU kernels.
#include <cmath>

#include "norm_cpu.h"
#include "pool_tensors.h"

namespace tin {
namespace {

template <class T>
const NormKernels<T>& kernels_of(T type) {
  return kernels_for(TIN_AT_LEVEL(norm), type);
}

template <class T>
void run_norm_join(const NormJoinArgs<T>& args) {
  over_rows(args, args.inner == 1 ? args.channels : args.inner, kernels_of(T()).norm_join);
}

// ---------------------------------------------------------------------------------------------------------------------
// in evaluation mode

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
        with_affine(args, norm, eps, [](const NormJoinArgs<T>& args) { run_norm_join(args); });
      });
}

Tensor norm_add_relu_pool(
    Tensor branch, Tensor identity, Tensor mean, Tensor var, Tensor weight, Tensor bias, double eps,
    OptionalTensor fold, int64_t pooled) {
  check_pool(branch, pooled);
  const Tensor means = new_means(branch, pooled);
  norm_join_with(
      branch, identity, fold, mean, var, weight, bias, [&]<class T>(const NormJoinArgs<T>& args, const Norm<T>& norm) {
        with_affine(args, norm, eps, [&](const NormJoinArgs<T>& args) {
          over_pooled(args, branch, means, pooled, kernels_of(T()).norm_join_pooled);
        });
      });
  return means;
}

void norm_relu(Tensor x, Tensor mean, Tensor var, Tensor weight, Tensor bias, double eps) {
  norm_join_with(
      x, x, std::nullopt, mean, var, weight, bias, [&]<class T>(NormJoinArgs<T> args, const Norm<T>& norm) {
        args.identity = nullptr;
        with_affine(args, norm, eps, [](const NormJoinArgs<T>& args) { run_norm_join(args); });
      });
}

// ---------------------------------------------------------------------------------------------------------------------
// in training mode

using FiveTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

void check_batch(const Tensor& x) {
  STD_TORCH_CHECK(
      x.dim() == 4 && is_channels_last(x) && x.size(1) % 8 == 0 && x.numel() > x.size(1),
      "x must be channels_last, of a multiple of 8 channels and of more than one pixel, got ", shape_text(x));
}

// Every item of `block` rows, the last of them shorter: each(item, rows)
template <class Each>
void over_items(int64_t rows, int64_t block, const Each& each) {
  for (int64_t item = 0; item * block < rows; ++item) {
    each(item, item * block + block < rows ? block : rows - item * block);
  }
}

// The mean over the batch, and the sum of squared distances from it.
template <class T>
void measure(const Tensor& x, Acc<T>* __restrict__ mean, Acc<T>* __restrict__ squares) {
  using A = Acc<T>;
  const int64_t channels = x.size(1), rows = x.numel() / channels, block = norm_block(channels);
  const int64_t items = (rows + block - 1) / block;
  const std::unique_ptr<A[]> parts(new A[2 * items * channels]);
  const StatsArgs<T> args{data<T>(x), parts.get(), parts.get() + items * channels, rows, channels, block};
  torch::stable::parallel_for(
      0, items, 1, [&](int64_t begin, int64_t end) { kernels_of(T()).stats(args, begin, end); });
  for (int64_t c = 0; c < channels; ++c) {
    mean[c] = squares[c] = 0;
  }
  over_items(rows, block, [&](int64_t item, int64_t count) {
    const A* __restrict__ means = args.means + item * channels;
    for (int64_t c = 0; c < channels; ++c) {
      mean[c] += static_cast<A>(count) * means[c];
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    mean[c] /= static_cast<A>(rows);
  }
  over_items(rows, block, [&](int64_t item, int64_t count) {
    const A* __restrict__ means = args.means + item * channels;
    const A* __restrict__ part = args.squares + item * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const A distance = means[c] - mean[c];
      squares[c] += part[c] + static_cast<A>(count) * distance * distance;
    }
  });
}

FiveTensors batch_norm_relu(
    Tensor x, OptionalTensor identity, OptionalTensor fold, Tensor weight, Tensor bias, Tensor running_mean,
    Tensor running_var, double momentum, double eps, int64_t pooled) {
  check_batch(x);
  if (identity) {
    check_join(x, *identity);
    check_fold(x, fold);
  }
  const Tensor out = torch::stable::empty_like(x), signs = new_signs(x);
  const Tensor mean = torch::stable::empty_like(weight), invstd = torch::stable::empty_like(weight);
  if (pooled != 0) {
    check_pool(x, pooled);
  }
  const Tensor means = new_means(x, pooled);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    using A = Acc<T>;
    check_per_channel<T>(x, {&weight, &bias, &running_mean, &running_var});
    const int64_t channels = x.size(1), rows = x.numel() / channels;
    A *center = mutable_data<A>(mean), *scaled = mutable_data<A>(invstd);
    measure<T>(x, center, scaled);
    const std::unique_ptr<A[]> affine(new A[2 * channels]);
    A *average = mutable_data<A>(running_mean), *variance = mutable_data<A>(running_var);
    const A share = static_cast<A>(momentum), rest = static_cast<A>(1 - momentum);
    for (int64_t c = 0; c < channels; ++c) {
      const A squares = scaled[c];
      average[c] = rest * average[c] + share * center[c];
      variance[c] = rest * variance[c] + share * (squares / static_cast<A>(rows - 1));
      scaled[c] = 1 / std::sqrt(squares / static_cast<A>(rows) + static_cast<A>(eps));
      affine[c] = data<A>(weight)[c] * scaled[c];
      affine[channels + c] = data<A>(bias)[c] - center[c] * affine[c];
    }
    NormJoinArgs<T> args{};
    args.x = data<T>(x);
    args.identity = identity ? data<T>(*identity) : nullptr;
    args.out = mutable_data<T>(out);
    args.signs = mutable_data<uint8_t>(signs);
    args.scale = affine.get();
    args.shift = affine.get() + channels;
    args.fold = fold ? data<T>(*fold) : nullptr;
    args.folded = fold ? fold->size(1) : 0;
    args.channels = channels;
    args.inner = 1;
    args.count = x.numel();
    if (pooled > 0) {
      over_pooled(args, x, means, pooled, kernels_of(T()).norm_join_pooled);
    } else {
      run_norm_join(args);
    }
  });
  return {out, signs, mean, invstd, means};
}

Tensors batch_norm_backward(
    Tensor grad, OptionalTensor signs, Tensor x, Tensor weight, Tensor mean, Tensor invstd) {
  check_batch(x);
  STD_TORCH_CHECK(
      alike(grad, x) && (!signs || (signs->scalar_type() == ScalarType::Byte && signs->numel() * 8 == x.numel())),
      "grad must be laid out as x, and signs a bit an element, got ", shape_text(grad), " for ", shape_text(x));
  const Tensor x_grad = torch::stable::empty_like(x);
  const Tensor weight_grad = torch::stable::empty_like(weight), bias_grad = torch::stable::empty_like(weight);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    using A = Acc<T>;
    check_per_channel<T>(x, {&weight, &mean, &invstd});
    const int64_t channels = x.size(1), rows = x.numel() / channels, block = norm_block(channels);
    const int64_t items = (rows + block - 1) / block;
    const std::unique_ptr<A[]> sums(new A[2 * items * channels]), values(new A[3 * channels]);
    A *factor = values.get(), *level = factor + channels, *slope = level + channels;
    const NormBackwardArgs<T> args{
        data<T>(grad), signs ? data<uint8_t>(*signs) : nullptr, data<T>(x), mutable_data<T>(x_grad), data<A>(mean),
        sums.get(), factor, level, slope, rows, channels, block};
    torch::stable::parallel_for(
        0, items, 1, [&](int64_t begin, int64_t end) { kernels_of(T()).sums(args, begin, end); });
    A *__restrict__ total = mutable_data<A>(bias_grad), *__restrict__ dot = mutable_data<A>(weight_grad);
    for (int64_t c = 0; c < channels; ++c) {
      total[c] = dot[c] = 0;
    }
    over_items(rows, block, [&](int64_t item, int64_t) {
      const A* __restrict__ part = sums.get() + item * 2 * channels;
      for (int64_t c = 0; c < channels; ++c) {
        total[c] += part[c];
        dot[c] += part[channels + c];
      }
    });
    for (int64_t c = 0; c < channels; ++c) {
      const A scale = data<A>(invstd)[c];
      factor[c] = data<A>(weight)[c] * scale;
      level[c] = total[c] / static_cast<A>(rows);
      slope[c] = dot[c] * scale * scale / static_cast<A>(rows);
      dot[c] *= scale;
    }
    torch::stable::parallel_for(0, rows, kGrain / channels + 1, [&](int64_t begin, int64_t end) {
      kernels_of(T()).backward(args, begin, end);
    });
  });
  return {x_grad, weight_grad, bias_grad};
}

} // namespace
} // namespace tin

STABLE_TORCH_LIBRARY_FRAGMENT(tin, m) {
  m.def(
      "norm_add_relu_(Tensor(a!) branch, Tensor identity, Tensor mean, Tensor var, Tensor weight, Tensor bias, "
      "float eps, Tensor? fold=None) -> ()");
  // the same on channels_last memory; gives what add_relu_pool_ gives
  m.def(
      "norm_add_relu_pool_(Tensor(a!) branch, Tensor identity, Tensor mean, Tensor var, Tensor weight, Tensor bias, "
      "float eps, Tensor? fold, int pooled) -> Tensor");
  m.def("norm_relu_(Tensor(a!) x, Tensor mean, Tensor var, Tensor weight, Tensor bias, float eps) -> ()");
  // relu(batch_norm(x) + identity) in training mode on channels_last memory, in memory of its own; its signs, the batch's mean
  // and 1 / sqrt(var + eps), (C,) each, and what add_relu_pool_ gives, if `pooled` is not 0
  m.def(
      "batch_norm_relu(Tensor x, Tensor? identity, Tensor? fold, Tensor weight, Tensor bias, Tensor(a!) running_mean, "
      "Tensor(b!) running_var, float momentum, float eps, int pooled) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // the gradients of x, weight and bias; with signs, of batch_norm and the ReLU after it
  m.def(
      "batch_norm_backward(Tensor grad, Tensor? signs, Tensor x, Tensor weight, Tensor mean, Tensor invstd) "
      "-> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(tin, CPU, m) {
  m.impl("norm_add_relu_", TORCH_BOX(&tin::norm_add_relu));
  m.impl("norm_add_relu_pool_", TORCH_BOX(&tin::norm_add_relu_pool));
  m.impl("norm_relu_", TORCH_BOX(&tin::norm_relu));
  m.impl("batch_norm_relu", TORCH_BOX(&tin::batch_norm_relu));
  m.impl("batch_norm_backward", TORCH_BOX(&tin::batch_norm_backward));
}
