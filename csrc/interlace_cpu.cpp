// The CPU kernels. Compiled once for each instruction set, with TIN_LEVEL naming it: loops are plain and left to the
// compiler to vectorise. Nothing with external linkage but the table at the end (no standard library templates): the
// linker would choose one instruction set's copy for all.
#include "interlace_cpu.h"
#include "signs_cpu.h"

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

template <int N>
struct Length {
  static constexpr int value = N;
};

// Calls body(Length<N>) with the length as a compile-time number where it is one of the usual ones.
template <class Body>
TIN_INLINE void with_length(int64_t length, const Body& body) {
  switch (length) {
    case 4: return body(Length<4>{});
    case 8: return body(Length<8>{});
    case 16: return body(Length<16>{});
    case 32: return body(Length<32>{});
    default: return body(Length<0>{});
  }
}

// Where a group of an output frame comes from: both frames, `near` alone, or none and `fill`.
template <class T>
struct Origin {
  const T* near;
  const T* far;
  Acc<T> near_scale, far_scale, fill;
};

template <class T>
TIN_INLINE Origin<T> origin_of(const T* clip, int64_t frame, const Taps<Acc<T>>& taps) {
  const T* near = taps.near.used ? clip + taps.near.frame * frame : nullptr;
  const T* far = taps.far.used ? clip + taps.far.frame * frame : nullptr;
  if (!near) {
    return {far, nullptr, taps.far.scale, 0, taps.fill};
  }
  return {near, far, taps.near.scale, taps.far.scale, taps.fill};
}

template <int LENGTH, class T>
TIN_INLINE void move(T* out, const Origin<T>& from, int64_t at, int64_t length) {
  if (from.far) {
    combine<LENGTH>(out, from.near + at, from.far + at, from.near_scale, from.far_scale, length);
  } else if (from.near) {
    scale<LENGTH>(out, from.near + at, from.near_scale, length);
  } else {
    fill<LENGTH>(out, from.fill, length);
  }
}

// out = a + b; out may be a.
template <class T>
TIN_INLINE void add(T* out, const T* a, const T* b, int64_t length) {
  for (int64_t i = 0; i < length; ++i) {
    narrow(widen(a[i]) + widen(b[i]), out[i]);
  }
}

// What move_chunk makes a part of a frame from.
template <class T>
struct Movement {
  T* out; // the frame
  const T* clip; // first of the clip's frames that are read
  const T* own; // the frame that channels of no group are taken from
  const T* passed; // a frame that is added, null for none
  int64_t stride, width; // and of which pixels it is, as in CpuBackwardArgs
  const uint8_t* signs; // of the frame, likewise; null for none
};

// The row of `passed` that is added to a row of the frame; null for none.
template <class T>
TIN_INLINE const T* passed_row(const Params& p, const Movement<T>& m, int64_t row) {
  if (!m.passed || m.stride == 1) {
    return m.passed ? m.passed + row * p.row : nullptr;
  }
  const int64_t y = row / m.width, x = row % m.width;
  const bool picked = y % m.stride == 0 && x % m.stride == 0;
  const int64_t width = (m.width + m.stride - 1) / m.stride;
  return picked ? m.passed + (y / m.stride * width + x / m.stride) * p.row : nullptr;
}

// out = in + passed where `signs` are set; null stands for nothing to add, and for signs that are set. out may be in.
template <class T>
TIN_INLINE void pass(T* out, const T* in, const T* passed, const uint8_t* signs, int64_t length) {
  if (signs && passed) {
    for (int64_t i = 0; i < length; i += 8) {
      pass_sum_of_eight(out + i, in + i, passed + i, signs[i / 8]);
    }
  } else if (signs) {
    for (int64_t i = 0; i < length; i += 8) {
      pass_eight(out + i, in + i, signs[i / 8]);
    }
  } else if (passed) {
    add(out, in, passed, length);
  } else if (out != in) {
    memcpy(out, in, static_cast<size_t>(length) * sizeof(T));
  }
}

// Group after group: for planes, and for more groups than move_rows takes.
template <class T, class TapsOf>
TIN_INLINE void move_groups(const Params& p, const Chunk& chunk, const Movement<T>& m, const TapsOf& taps_of) {
  for (int64_t k = 0; k < p.groups; ++k) {
    const Block block = block_of(p, chunk, k * p.run, (k + 1) * p.run);
    const Origin<T> from = origin_of(m.clip, p.frame, taps_of(k));
    for (int64_t r = 0; r < block.rows; ++r) {
      const int64_t at = block.first + r * p.row;
      move<0>(m.out + at, from, at, block.length);
      if (m.passed) {
        add(m.out + at, m.out + at, m.passed + at, block.length);
      }
    }
  }
  const Block rest = block_of(p, chunk, p.groups * p.run, p.row);
  for (int64_t r = 0; r < rest.rows; ++r) {
    const int64_t at = rest.first + r * p.row;
    if (m.passed) {
      add(m.out + at, m.own + at, m.passed + at, rest.length);
    } else {
      memcpy(m.out + at, m.own + at, static_cast<size_t>(rest.length) * sizeof(T));
    }
  }
}

constexpr int64_t kLine = 64; // bytes of a cache line
constexpr int64_t kAhead = 8; // rows
constexpr int64_t kLinesAhead = 16; // rows, where a row's groups are one line
constexpr int64_t kStage = 4096; // bytes of groups in a row that it takes at most when it streams

// Asks for elements that a later row will want: processors do not foresee a few lines in every row of many frames
// (measured: a quarter less time for 51 MB of 256 channels, but a loss where a group is less than a line).
template <class T>
TIN_INLINE void prefetch(const T* from, int64_t at, int64_t length) {
  if (from) {
    const char* first = reinterpret_cast<const char*>(from) + at * static_cast<int64_t>(sizeof(T));
    for (int64_t i = 0; i < length * static_cast<int64_t>(sizeof(T)); i += kLine) {
      __builtin_prefetch(first + i);
    }
  }
}

// Writes whole lines past the caches, which then need not read what is about to be overwritten.
template <class T>
TIN_INLINE void stream_lines(T* to, const T* from, int64_t length) {
  char* out = reinterpret_cast<char*>(to);
  const char* in = reinterpret_cast<const char*>(from);
  const int64_t bytes = length * static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < bytes; i += kLine) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + i), _mm512_loadu_si512(in + i));
#elif defined(__x86_64__)
    for (int j = 0; j < kLine; j += 16) {
      const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i + j));
      _mm_stream_si128(reinterpret_cast<__m128i*>(out + i + j), part);
    }
#else
    memcpy(out + i, in + i, kLine);
#endif
  }
}

// A row of all groups, made of registers where they are a cache line together: of pieces put side by side in memory the line
// could not be read back at once, for a stream or a sum.
struct NoLine {
  template <class... Args>
  __attribute__((always_inline)) NoLine(const Args&...) {}
};

template <int LENGTH, class T>
constexpr int kLineGroups = 0; // that are a line, with registers of a line; 0: none

template <int LENGTH, class T>
struct Line : NoLine {};

#if defined(__AVX512F__)
template <>
constexpr int kLineGroups<4, float> = 4;
template <>
constexpr int kLineGroups<8, float> = 2;

template <int LENGTH>
struct Line<LENGTH, float> {
  static constexpr int groups = kLineGroups<LENGTH, float>;
  __mmask16 near_lanes[groups], far_lanes[groups];
  const float *near_frame[groups], *far_frame[groups];
  __m512 near_else, far_else, near_scale, far_scale;
  const float* frames[2 * groups]; // each that is read, once
  int count = 0;

  // What a group does not read stands for its fill, and for -0, which changes no sum.
  __attribute__((always_inline)) Line(const Origin<float>* from, const float* any) {
    alignas(64) float else_[16], near_scales[16], far_scales[16];
    for (int k = 0; k < groups; ++k) {
      const __mmask16 lanes = static_cast<__mmask16>(((1u << LENGTH) - 1) << (k * LENGTH));
      near_lanes[k] = from[k].near ? lanes : 0;
      far_lanes[k] = from[k].far ? lanes : 0;
      near_frame[k] = from[k].near ? from[k].near : any;
      far_frame[k] = from[k].far ? from[k].far : any;
      for (int j = k * LENGTH; j < (k + 1) * LENGTH; ++j) {
        else_[j] = from[k].fill;
        near_scales[j] = from[k].near ? from[k].near_scale : 1;
        far_scales[j] = from[k].far ? from[k].far_scale : 1;
      }
    }
    for (int k = 0; k < groups; ++k) {
      note(near_frame[k]);
      note(far_frame[k]);
    }
    near_else = _mm512_load_ps(else_);
    far_else = _mm512_set1_ps(-0.0f);
    near_scale = _mm512_load_ps(near_scales);
    far_scale = _mm512_load_ps(far_scales);
  }

  __attribute__((always_inline)) void note(const float* frame) {
    for (int i = 0; i < count; ++i) {
      if (frames[i] == frame) {
        return;
      }
    }
    frames[count++] = frame;
  }

  // Asks for a later row: one line of each frame, which no processor foresees (measured: half the time).
  __attribute__((always_inline)) void prefetch(int64_t at) const {
    for (int i = 0; i < count; ++i) {
      __builtin_prefetch(frames[i] + at);
    }
  }

  __attribute__((always_inline)) __m512 near(int64_t at) const {
    __m512 value = near_else;
    for (int k = 0; k < groups; ++k) {
      value = _mm512_mask_loadu_ps(value, near_lanes[k], near_frame[k] + at);
    }
    return value;
  }

  __attribute__((always_inline)) __m512 far(int64_t at) const {
    __m512 value = far_else;
    for (int k = 0; k < groups; ++k) {
      value = _mm512_mask_loadu_ps(value, far_lanes[k], far_frame[k] + at);
    }
    return value;
  }

  __attribute__((always_inline)) void move(float* out, int64_t at) const {
    _mm512_storeu_ps(out, _mm512_add_ps(_mm512_mul_ps(near_scale, near(at)), _mm512_mul_ps(far_scale, far(at))));
  }
};
#endif

// Row after row, so that everything that is read or written is met in the order it lies in.
template <int LENGTH, bool STREAM, bool LINE, class T, class TapsOf>
TIN_INLINE void move_rows(const Params& p, const Chunk& chunk, const Movement<T>& m, const TapsOf& taps_of) {
  constexpr int64_t size = sizeof(T);
  Origin<T> from[kGroups];
  for (int64_t k = 0; k < p.groups; ++k) {
    from[k] = origin_of(m.clip, p.frame, taps_of(k));
  }
  [[maybe_unused]] const std::conditional_t<LINE, Line<LENGTH, T>, NoLine> line(from, m.own);
  // a stream takes whole lines: the line in which the groups end is put together with what follows them
  alignas(kLine) T staged[STREAM ? kStage / size : 1];
  const int64_t fold = p.groups * p.run;
  const int64_t edge = STREAM ? (fold * size + kLine - 1) / kLine * kLine / size : fold;
  const bool far_apart = STREAM && p.run * size >= kLine;
  for (int64_t r = chunk.row; r < chunk.row + chunk.rows; ++r) {
    const int64_t at = r * p.row;
    T* row = STREAM ? staged : m.out + at;
    if constexpr (LINE) {
      line.move(row, at);
      if (STREAM) {
        line.prefetch(at + kLinesAhead * p.row);
      }
    } else {
      for (int64_t k = 0; k < p.groups; ++k) {
        move<LENGTH>(row + k * p.run, from[k], at + k * p.run, p.run);
        if (far_apart) {
          const int64_t soon = at + kAhead * p.row + k * p.run;
          prefetch(from[k].near, soon, p.run);
          prefetch(from[k].far, soon, p.run);
        }
      }
    }
    if (STREAM) {
      memcpy(staged + fold, m.own + at + fold, static_cast<size_t>(edge - fold) * size);
      stream_lines(m.out + at, staged, edge);
      stream_lines(m.out + at + edge, m.own + at + edge, p.row - edge);
    } else {
      const T* passed = passed_row(p, m, r);
      const uint8_t* signs = m.signs ? m.signs + at / 8 : nullptr;
      pass(row, row, passed, signs, fold);
      pass(
          row + fold, m.own + at + fold, passed ? passed + fold : nullptr, signs ? signs + fold / 8 : nullptr,
          p.row - fold);
    }
  }
#if defined(__x86_64__)
  if (STREAM) {
    _mm_sfence();
  }
#endif
}

template <class T, class TapsOf>
TIN_INLINE void move_chunk(
    const Params& p, const CpuGrid& grid, const Chunk& chunk, const Movement<T>& m, const TapsOf& taps_of) {
  if (p.rows == 1 || p.groups > kGroups) {
    return move_groups(p, chunk, m, taps_of);
  }
  const int64_t size = sizeof(T);
  const bool lines = p.row * size % kLine == 0 && reinterpret_cast<uintptr_t>(m.out) % kLine == 0;
  // With `passed` it is a network's gradient, whose next reader follows at once: the two are faster through the caches.
  const bool stream = grid.large && !m.passed && !m.signs && lines && p.groups * p.run * size <= kStage;
  with_length(p.run, [&](auto length) {
    constexpr int run = length.value;
    if constexpr (kLineGroups<run, T> != 0) {
      if (p.groups == kLineGroups<run, T>) {
        return stream ? move_rows<run, true, true>(p, chunk, m, taps_of) : move_rows<run, false, true>(p, chunk, m, taps_of);
      }
    }
    return stream ? move_rows<run, true, false>(p, chunk, m, taps_of) : move_rows<run, false, false>(p, chunk, m, taps_of);
  });
}

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

// Products of all groups of a chunk, where they are a line together; each lane adds as add_products does. False: they are not.
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
      if (add_line_products(p, chunk, from, x, args.x_row, grid.large, args.partials + chunk.index * p.groups * 2)) {
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
