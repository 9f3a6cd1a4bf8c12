// The CPU kernels. Compiled once for each instruction set, with TIN_LEVEL naming it: loops are plain and left to the
// compiler to vectorise. Nothing with external linkage but the table at the end (no standard library templates): the
// linker would choose one instruction set's copy for all.
#include "gather_cpu.h"

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
  const bool far_apart = grid.large && p.rows > 1 && p.run * static_cast<int64_t>(sizeof(T)) >= kLine / 2;
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
      const Products<T> products{
          args.partials ? args.x + chunk.frame * args.x_frame + chunk.row * args.x_row : nullptr, args.x_row,
          args.partials + chunk.index * p.groups * 2};
      if (gather_chunk(p, grid, chunk, m, products, taps_of)) {
        continue;
      }
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

// Writes `rows` rows of a frame's groups to `out`, from rows that hold the groups of the part alone.
template <class T, class TapsOf>
TIN_INLINE void move_part(
    const Params& p, T* out, const T* groups, int64_t frame, int64_t rows, const TapsOf& taps_of) {
  const int64_t fold = p.groups * p.run;
  with_length(p.run, [&](auto length) {
    constexpr int run = length.value;
    if constexpr (kLineGroups<run, T> != 0) {
      if (p.groups == kLineGroups<run, T>) {
        Origin<T> from[kLineGroups<run, T>];
        for (int64_t k = 0; k < p.groups; ++k) {
          from[k] = origin_of(groups, frame, taps_of(k));
        }
        const Line<run, T> line(from, groups);
        for (int64_t r = 0; r < rows; ++r) {
          line.move(out + r * p.row, r * fold);
        }
        return;
      }
    }
    for (int64_t k = 0; k < p.groups; ++k) {
      const Origin<T> from = origin_of(groups, frame, taps_of(k));
      for (int64_t r = 0; r < rows; ++r) {
        move<run>(out + r * p.row + k * p.run, from, r * fold + k * p.run, p.run);
      }
    }
  });
}

template <class T>
void in_place(const Params& p, const InPlaceArgs<T>& args, T* scratch, int64_t begin, int64_t end) {
  const int64_t parts = (p.rows + args.part_rows - 1) / args.part_rows, fold = p.groups * p.run;
  const int64_t frame = args.kept ? p.rows * fold : args.part_rows * fold; // of the copy
  for (int64_t index = begin; index < end; ++index) {
    const int64_t n = index / parts, first = index % parts * args.part_rows;
    const int64_t rows = first + args.part_rows < p.rows ? args.part_rows : p.rows - first;
    T* clip = args.x + n * p.segments * p.frame + first * p.row;
    T* copy = args.kept ? args.kept + n * p.segments * frame + first * fold : scratch;
    for (int64_t t = 0; t < p.segments; ++t) {
      const T* from = clip + t * p.frame;
      T* to = copy + t * frame;
      for (int64_t r = 0; r < rows; ++r) {
        prefetch(from, (r + args.part_rows) * p.row, fold);
        memcpy(to + r * fold, from + r * p.row, static_cast<size_t>(fold) * sizeof(T));
      }
    }
    for (int64_t t = 0; t < p.segments; ++t) {
      move_part(p, clip + t * p.frame, static_cast<const T*>(copy), frame, rows, [&](int64_t k) {
        return forward_taps(p, args.offset, args.weight, n, t, k);
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
constexpr CpuKernels<T> kernels = {forward<T>, backward<T>, in_place<T>, finish<T>};

} // namespace

TIN_DEFINE_LEVEL(InterlaceTable, interlace, kernels);

} // namespace tin
