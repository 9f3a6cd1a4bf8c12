// The CPU kernels. Compiled once for each instruction set, with TIN_LEVEL naming it: loops are plain and left to the
// compiler to vectorise. Nothing with external linkage but the table at the end (no standard library templates): the
// linker would choose one instruction set's copy for all.
#include "move_cpu.h"

namespace tin {
namespace {

// Adds the products a[i] * x[i] and b[i] * x[i] of a stretch to 16 running sums each, so that the loop vectorises
// without changing the order of additions. Null stands for zeros.
template <int LENGTH, class T>
TIN_INLINE void add_products(
    Acc<T>* __restrict__ a_sums, Acc<T>* __restrict__ b_sums, const T* a, const T* b, const T* x, int64_t length) {
  constexpr int lanes = LENGTH && LENGTH < 16 ? LENGTH : 16;
  const int64_t count = LENGTH ? LENGTH : length;
  const auto add = [&](Acc<T>* __restrict__ sums, const T* in) {
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      for (int j = 0; j < lanes; ++j) {
        sums[j] += widen(in[i + j]) * widen(x[i + j]);
      }
    }
    for (int j = 0; i + j < count; ++j) {
      sums[j] += widen(in[i + j]) * widen(x[i + j]);
    }
  };
  if (a) {
    add(a_sums, a);
  }
  if (b) {
    add(b_sums, b);
  }
}

template <class A>
TIN_INLINE A total(A* sums) {
  for (int step = 8; step > 0; step /= 2) {
    for (int j = 0; j < step; ++j) {
      sums[j] += sums[j + step];
    }
  }
  return sums[0];
}

// Products of all groups of a chunk, where together they are a line; each lane adds as add_products does. False: they are not.
template <class T>
TIN_INLINE bool add_line_products(
    [[maybe_unused]] const Params& p, [[maybe_unused]] const Chunk& chunk, [[maybe_unused]] const Origin<T>* from,
    [[maybe_unused]] const T* x, [[maybe_unused]] int64_t x_row, [[maybe_unused]] bool large,
    [[maybe_unused]] Acc<T>* sums) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    const auto add = [&](auto length) {
      const Line<length.value, float> line(from, x);
      __m512 near_sums = _mm512_setzero_ps(), far_sums = _mm512_setzero_ps();
      __mmask16 near_lanes = 0, far_lanes = 0;
      for (int k = 0; k < line.groups; ++k) {
        near_lanes |= line.near_lanes[k];
        far_lanes |= line.far_lanes[k];
      }
      for (int64_t r = 0; r < chunk.rows; ++r) {
        const int64_t at = (chunk.row + r) * p.row;
        if (large) {
          __builtin_prefetch(x + (r + kLinesAhead) * x_row);
        }
        const __m512 value = _mm512_loadu_ps(x + r * x_row);
        near_sums = _mm512_mask_add_ps(near_sums, near_lanes, near_sums, _mm512_mul_ps(line.near(at), value));
        far_sums = _mm512_mask_add_ps(far_sums, far_lanes, far_sums, _mm512_mul_ps(line.far(at), value));
      }
      alignas(64) float near[16], far[16];
      _mm512_store_ps(near, near_sums);
      _mm512_store_ps(far, far_sums);
      for (int k = 0; k < line.groups; ++k) {
        float near_group[16] = {}, far_group[16] = {};
        for (int j = 0; j < length.value; ++j) {
          near_group[j] = near[k * length.value + j];
          far_group[j] = far[k * length.value + j];
        }
        sums[2 * k] = total(near_group);
        sums[2 * k + 1] = total(far_group);
      }
      return true;
    };
    if (p.run == 4 && p.groups == 4) {
      return add(Length<4>{});
    }
    if (p.run == 8 && p.groups == 2) {
      return add(Length<8>{});
    }
  }
#endif
  return false;
}

template <class T>
void forward(const Params& p, const CpuGrid& grid, const ForwardArgs<T>& args, int64_t begin, int64_t end) {
  for (int64_t index = begin; index < end; ++index) {
    const Chunk chunk = chunk_of(p, grid, index);
    const int64_t here = chunk.frame * p.frame;
    const Movement<T> m{args.out + here, args.x + chunk.n * p.segments * p.frame, args.x + here, nullptr, 1, 1, nullptr};
    move_chunk(p, grid, chunk, m, [&](int64_t k) {
      return forward_taps(p, args.offset, args.weight, chunk.n, chunk.t, k);
    });
  }
}

template <class T>
void backward(const Params& p, const CpuGrid& grid, const CpuBackwardArgs<T>& all, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const BackwardArgs<T>& args = all.op;
  const int64_t passed_pixels = p.rows == 1 || all.stride == 1 ? p.rows
      : (all.width + all.stride - 1) / all.stride * ((p.rows / all.width + all.stride - 1) / all.stride);
  const bool far_apart = grid.large && p.rows > 1 && p.run * static_cast<int64_t>(sizeof(T)) >= kLine;
  for (int64_t index = begin; index < end; ++index) {
    const Chunk chunk = chunk_of(p, grid, index);
    const int64_t here = chunk.frame * p.frame;
    const T* clip = args.grad + chunk.n * p.segments * p.frame;
    const auto taps_of = [&](int64_t k) {
      return backward_taps(p, args.offset, args.weight, chunk.n, chunk.t, k);
    };
    if (args.grad_x) {
      const Movement<T> m{
          args.grad_x + here, clip, args.grad + here,
          args.passed ? args.passed + chunk.frame * passed_pixels * p.row : nullptr, all.stride, all.width,
          all.signs ? all.signs + here / 8 : nullptr};
      move_chunk(p, grid, chunk, m, taps_of);
    }
    if (!args.partials) {
      continue;
    }
    const auto read_by = [&](int64_t k) -> Origin<T> {
      const Taps<A> taps = taps_of(k);
      return {
          taps.near.frame < 0 ? nullptr : clip + taps.near.frame * p.frame,
          taps.far.frame < 0 ? nullptr : clip + taps.far.frame * p.frame, 1, 1, 0};
    };
    if (p.rows > 1 && p.groups <= kGroups) {
      Origin<T> from[kGroups];
      for (int64_t k = 0; k < p.groups; ++k) {
        from[k] = read_by(k);
      }
      const T* x = args.x + chunk.frame * args.x_frame + chunk.row * args.x_row;
      A* sums = args.partials + chunk.index * p.groups * 2;
      if (add_line_products(p, chunk, from, x, args.x_row, grid.large, sums)) {
        continue;
      }
    }
    for (int64_t k = 0; k < p.groups; ++k) {
      const auto [near, far, near_scale, far_scale, fill] = read_by(k);
      const Block block = block_of(p, chunk, k * p.run, (k + 1) * p.run);
      A near_sums[16] = {}, far_sums[16] = {};
      with_length(block.length, [&](auto length) {
        const T* x = args.x + chunk.frame * args.x_frame + chunk.row * args.x_row + (block.first - chunk.row * p.row);
        for (int64_t r = 0; r < block.rows; ++r) {
          const int64_t at = block.first + r * p.row;
          if (far_apart) {
            prefetch(x, (r + kAhead) * args.x_row, block.length);
          }
          add_products<length.value>(
              near_sums, far_sums, near ? near + at : nullptr, far ? far + at : nullptr, x + r * args.x_row,
              block.length);
        }
      });
      A* sums = args.partials + (chunk.index * p.groups + k) * 2;
      sums[0] = total(near_sums);
      sums[1] = total(far_sums);
    }
  }
}

template <class T>
void into(
    const Params& p, const CpuGrid& grid, const ForwardArgs<T>& args, int64_t out_row, int64_t out_frame, int64_t begin,
    int64_t end) {
  for (int64_t index = begin; index < end; ++index) {
    const Chunk chunk = chunk_of(p, grid, index);
    T* out = args.out + chunk.frame * out_frame + chunk.row * out_row;
    for (int64_t k = 0; k < p.groups; ++k) {
      const Taps<Acc<T>> taps = forward_taps(p, args.offset, args.weight, chunk.n, chunk.t, k);
      const Origin<T> from = origin_of(args.x + chunk.n * p.segments * p.frame, p.frame, taps);
      const int64_t at = chunk.row * p.row + k * p.run;
      with_length(p.run, [&](auto length) {
        for (int64_t r = 0; r < chunk.rows; ++r) {
          move<length.value>(out + r * out_row + k * p.run, from, at + r * p.row, p.run);
        }
      });
    }
  }
}

template <class T>
void finish(const Params& p, const FinishArgs<T>& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    finish_totals(p, args, i / p.groups, i % p.groups, 0, 1);
    finish_gradients(p, args, i / p.groups, i % p.groups, 0, 1);
  }
}

template <class T>
constexpr CpuKernels<T> kernels = {forward<T>, backward<T>, into<T>, finish<T>};

} // namespace

TIN_DEFINE_LEVEL(InterlaceTable, interlace, kernels);

} // namespace tin
