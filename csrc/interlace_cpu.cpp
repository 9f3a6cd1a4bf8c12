// The CPU kernels. Compiled once for each instruction set, with TIN_LEVEL naming it: loops are plain and left to the
// compiler to vectorise. Nothing with external linkage but the table at the end (no standard library templates): the
// linker would choose one instruction set's copy for all.
#include "interlace_cpu.h"

namespace tin {
namespace {

// out = near_scale * near + far_scale * far over `length` elements; LENGTH, when not 0, says so at compile time.
template <int LENGTH, class T>
TIN_INLINE void combine(
    T* __restrict__ out, const T* __restrict__ near, const T* __restrict__ far, Acc<T> near_scale, Acc<T> far_scale,
    int64_t length) {
  for (int64_t i = 0; i < (LENGTH ? LENGTH : length); ++i) {
    narrow(near_scale * widen(near[i]) + far_scale * widen(far[i]), out[i]);
  }
}

template <int LENGTH, class T>
TIN_INLINE void scale(T* __restrict__ out, const T* __restrict__ in, Acc<T> scale, int64_t length) {
  for (int64_t i = 0; i < (LENGTH ? LENGTH : length); ++i) {
    narrow(scale * widen(in[i]), out[i]);
  }
}

template <int LENGTH, class T>
TIN_INLINE void fill(T* out, Acc<T> value, int64_t length) {
  T narrowed;
  narrow(value, narrowed);
  for (int64_t i = 0; i < (LENGTH ? LENGTH : length); ++i) {
    out[i] = narrowed;
  }
}

// A rectangle of a frame: `rows` rows from `first` on, `length` elements each, that belong to one group.
struct Block {
  int64_t first;
  int64_t rows;
  int64_t stride;
  int64_t length;
};

template <int LENGTH, class T>
TIN_INLINE void move_block(T* out, const T* clip, int64_t frame, const Block& b, const Taps<Acc<T>>& taps) {
  const T* near = taps.near.used ? clip + taps.near.frame * frame + b.first : nullptr;
  const T* far = taps.far.used ? clip + taps.far.frame * frame + b.first : nullptr;
  out += b.first;
  if (near && far) {
    for (int64_t r = 0; r < b.rows; ++r) {
      const int64_t i = r * b.stride;
      combine<LENGTH>(out + i, near + i, far + i, taps.near.scale, taps.far.scale, b.length);
    }
  } else if (near || far) {
    const T* in = near ? near : far;
    const Acc<T> factor = near ? taps.near.scale : taps.far.scale;
    for (int64_t r = 0; r < b.rows; ++r) {
      scale<LENGTH>(out + r * b.stride, in + r * b.stride, factor, b.length);
    }
  } else {
    for (int64_t r = 0; r < b.rows; ++r) {
      fill<LENGTH>(out + r * b.stride, taps.fill, b.length);
    }
  }
}

// Sum of a*b over a block, in fixed order: 16 running sums, so that the loop vectorises without reassociation.
template <int LENGTH, class T>
TIN_INLINE Acc<T> dot_block(const T* a, const T* b, const Block& block) {
  constexpr int lanes = LENGTH && LENGTH < 16 ? LENGTH : 16;
  Acc<T> sums[16] = {};
  for (int64_t r = 0; r < block.rows; ++r) {
    const T* p = a + block.first + r * block.stride;
    const T* q = b + block.first + r * block.stride;
    const int64_t length = LENGTH ? LENGTH : block.length;
    int64_t i = 0;
    for (; i + lanes <= length; i += lanes) {
      for (int j = 0; j < lanes; ++j) {
        sums[j] += widen(p[i + j]) * widen(q[i + j]);
      }
    }
    for (int j = 0; i + j < length; ++j) {
      sums[j] += widen(p[i + j]) * widen(q[i + j]);
    }
  }
  for (int step = 8; step > 0; step /= 2) {
    for (int j = 0; j < step; ++j) {
      sums[j] += sums[j + step];
    }
  }
  return sums[0];
}

template <class T>
TIN_INLINE void copy_rows(T* out, const T* in, const Block& b) {
  for (int64_t r = 0; r < b.rows; ++r) {
    memcpy(out + b.first + r * b.stride, in + b.first + r * b.stride, static_cast<size_t>(b.length) * sizeof(T));
  }
}

template <int N>
struct Length {
  static constexpr int value = N;
};

// Calls body(Length<N>) with the block's length as a compile-time number where it is one of the usual ones.
template <class Body>
TIN_INLINE void with_length(const Block& b, const Body& body) {
  switch (b.length) {
    case 4: return body(Length<4>{});
    case 8: return body(Length<8>{});
    case 16: return body(Length<16>{});
    case 32: return body(Length<32>{});
    default: return body(Length<0>{});
  }
}

// Walks chunks [begin, end): group(n, t, k, block) for what belongs to a group, rest(n, t, block) for what does not.
// Groups that do not reach into the chunk get a block without rows.
template <class Group, class Rest>
TIN_INLINE void walk(
    const Params& p, const CpuGrid& grid, int64_t begin, int64_t end, const Group& group, const Rest& rest) {
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t frame = chunk / grid.chunks, part = chunk % grid.chunks;
    const int64_t n = frame / p.segments, t = frame % p.segments;
    const bool one_row = p.rows == 1;
    const int64_t row = one_row ? 0 : part * grid.chunk_rows;
    const int64_t rows = one_row ? 1 : (row + grid.chunk_rows < p.rows ? grid.chunk_rows : p.rows - row);
    const int64_t low = one_row ? part * grid.chunk_elements : 0;
    const int64_t high = one_row && low + grid.chunk_elements < p.row ? low + grid.chunk_elements : p.row;
    for (int64_t k = 0; k < p.groups; ++k) {
      const int64_t from = k * p.run > low ? k * p.run : low;
      const int64_t to = (k + 1) * p.run < high ? (k + 1) * p.run : high;
      group(n, t, k, chunk, Block{row * p.row + from, from < to ? rows : 0, p.row, to - from});
    }
    const int64_t from = p.groups * p.run > low ? p.groups * p.run : low;
    if (from < high) {
      rest(frame, Block{row * p.row + from, rows, p.row, high - from});
    }
  }
}

template <class T>
void forward(const Params& p, const CpuGrid& grid, const ForwardArgs<T>& args, int64_t begin, int64_t end) {
  walk(
      p, grid, begin, end,
      [&](int64_t n, int64_t t, int64_t k, int64_t, const Block& block) {
        const auto taps = forward_taps(p, args.offset, args.weight, n, t, k);
        T* out = args.out + (n * p.segments + t) * p.frame;
        const T* clip = args.x + n * p.segments * p.frame;
        with_length(block, [&](auto length) { move_block<length.value>(out, clip, p.frame, block, taps); });
      },
      [&](int64_t frame, const Block& block) {
        copy_rows(args.out + frame * p.frame, args.x + frame * p.frame, block);
      });
}

template <class T>
void backward(const Params& p, const CpuGrid& grid, const BackwardArgs<T>& args, int64_t begin, int64_t end) {
  walk(
      p, grid, begin, end,
      [&](int64_t n, int64_t s, int64_t k, int64_t chunk, const Block& block) {
        const auto taps = backward_taps(p, args.offset, args.weight, n, s, k);
        const int64_t here = (n * p.segments + s) * p.frame;
        const T* clip = args.grad + n * p.segments * p.frame;
        with_length(block, [&](auto length) {
          if (args.grad_x) {
            move_block<length.value>(args.grad_x + here, clip, p.frame, block, taps);
          }
          if (args.partials) {
            Acc<T>* sums = args.partials + (chunk * p.groups + k) * 2;
            sums[0] = taps.near.frame < 0 ? 0 : dot_block<length.value>(clip + taps.near.frame * p.frame, args.x + here, block);
            sums[1] = taps.far.frame < 0 ? 0 : dot_block<length.value>(clip + taps.far.frame * p.frame, args.x + here, block);
          }
        });
      },
      [&](int64_t frame, const Block& block) {
        if (args.grad_x) {
          copy_rows(args.grad_x + frame * p.frame, args.grad + frame * p.frame, block);
        }
      });
}

template <class T>
void finish(const Params& p, const FinishArgs<T>& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    finish_totals(p, args, i / p.groups, i % p.groups, 0, 1);
    finish_gradients(p, args, i / p.groups, i % p.groups, 0, 1);
  }
}

template <class T>
constexpr CpuKernels<T> kernels = {forward<T>, backward<T>, finish<T>};

} // namespace

#define TIN_QUOTE_(text) #text
#define TIN_QUOTE(text) TIN_QUOTE_(text)
#define TIN_JOIN_(a, b) a##b
#define TIN_JOIN(a, b) TIN_JOIN_(a, b)

extern const CpuLevel TIN_JOIN(cpu_, TIN_LEVEL);
const CpuLevel TIN_JOIN(cpu_, TIN_LEVEL) = {
    TIN_QUOTE(TIN_LEVEL), kernels<float>, kernels<double>, kernels<Half>, kernels<BFloat16>};

} // namespace tin
