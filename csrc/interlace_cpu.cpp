// The CPU kernels. Compiled once for each instruction set, with TIN_LEVEL naming it: loops are plain and left to the
// compiler to vectorise. Nothing with external linkage but the table at the end (no standard library templates): the
// linker would choose one instruction set's copy for all.
#include "interlace_cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

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
};

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
constexpr int64_t kGroups = 8; // that move_rows takes at most
constexpr int64_t kAhead = 8; // rows
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
TIN_INLINE void stream_lines(char* out, const char* in, int64_t bytes) {
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

// Row after row, so that everything that is read or written is met in the order it lies in.
template <int LENGTH, bool STREAM, class T, class TapsOf>
TIN_INLINE void move_rows(const Params& p, const Chunk& chunk, const Movement<T>& m, const TapsOf& taps_of) {
  constexpr int64_t size = sizeof(T);
  Origin<T> from[kGroups];
  for (int64_t k = 0; k < p.groups; ++k) {
    from[k] = origin_of(m.clip, p.frame, taps_of(k));
  }
  // a stream takes whole lines: the line in which the groups end is put together with what follows them
  alignas(kLine) T staged[STREAM ? kStage / size : 1];
  const int64_t fold = p.groups * p.run, bytes = p.row * size;
  const int64_t edge = STREAM ? (fold * size + kLine - 1) / kLine * kLine : fold * size;
  const bool far_apart = STREAM && p.run * size >= kLine;
  for (int64_t r = chunk.row; r < chunk.row + chunk.rows; ++r) {
    const int64_t at = r * p.row;
    T* row = STREAM ? staged : m.out + at;
    for (int64_t k = 0; k < p.groups; ++k) {
      move<LENGTH>(row + k * p.run, from[k], at + k * p.run, p.run);
      if (far_apart) {
        const int64_t soon = at + kAhead * p.row + k * p.run;
        prefetch(from[k].near, soon, p.run);
        prefetch(from[k].far, soon, p.run);
      }
    }
    char* to = reinterpret_cast<char*>(m.out + at);
    const char* rest = reinterpret_cast<const char*>(m.own + at);
    if (STREAM) {
      memcpy(staged + fold, m.own + at + fold, static_cast<size_t>(edge - fold * size));
      stream_lines(to, reinterpret_cast<const char*>(staged), edge);
      stream_lines(to + edge, rest + edge, bytes - edge);
    } else if (m.passed) {
      add(row, row, m.passed + at, fold);
      add(row + fold, m.own + at + fold, m.passed + at + fold, p.row - fold);
    } else {
      memcpy(to + edge, rest + edge, static_cast<size_t>(bytes - edge));
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
  const bool stream = grid.large && !m.passed && lines && p.groups * p.run * size <= kStage;
  with_length(p.run, [&](auto length) {
    if (stream) {
      move_rows<length.value, true>(p, chunk, m, taps_of);
    } else {
      move_rows<length.value, false>(p, chunk, m, taps_of);
    }
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

template <class T>
void forward(const Params& p, const CpuGrid& grid, const ForwardArgs<T>& args, int64_t begin, int64_t end) {
  for (int64_t index = begin; index < end; ++index) {
    const Chunk chunk = chunk_of(p, grid, index);
    const int64_t here = chunk.frame * p.frame;
    const Movement<T> m{args.out + here, args.x + chunk.n * p.segments * p.frame, args.x + here, nullptr};
    move_chunk(p, grid, chunk, m, [&](int64_t k) {
      return forward_taps(p, args.offset, args.weight, chunk.n, chunk.t, k);
    });
  }
}

template <class T>
void backward(const Params& p, const CpuGrid& grid, const BackwardArgs<T>& args, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const bool far_apart = grid.large && p.rows > 1 && p.run * static_cast<int64_t>(sizeof(T)) >= kLine;
  for (int64_t index = begin; index < end; ++index) {
    const Chunk chunk = chunk_of(p, grid, index);
    const int64_t here = chunk.frame * p.frame;
    const T* clip = args.grad + chunk.n * p.segments * p.frame;
    const auto taps_of = [&](int64_t k) {
      return backward_taps(p, args.offset, args.weight, chunk.n, chunk.t, k);
    };
    if (args.grad_x) {
      const T* passed = args.passed ? args.passed + here : nullptr;
      move_chunk(p, grid, chunk, Movement<T>{args.grad_x + here, clip, args.grad + here, passed}, taps_of);
    }
    for (int64_t k = 0; args.partials && k < p.groups; ++k) {
      const Taps<A> taps = taps_of(k);
      const T* near = taps.near.frame < 0 ? nullptr : clip + taps.near.frame * p.frame;
      const T* far = taps.far.frame < 0 ? nullptr : clip + taps.far.frame * p.frame;
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
