// What one thread of the CUDA kernels does. Plain functions of (block, thread), so that a test walks the grid on the CPU.
//
// columns_*  for channels_last: a thread owns up to 16 bytes of channels and goes down the pixels of its part of a
//            frame; the frames it reads and their coefficients are found once.
// planes_*   for contiguous: a block owns a stretch of a frame that belongs to one group, or to none.
//
// Sums (for the gradients of offset and weight) go thread -> shared memory -> one pair a group and block -> `finish`,
// always in the same order: no atomics.
#pragma once

#include "interlace.h"

#if defined(__CUDACC__)
#define TIN_UNROLL _Pragma("unroll")
#else
#define TIN_UNROLL
#endif

namespace tin {

constexpr int kThreads = 256;

// Elements of one access: 16 bytes where everything is aligned to them, else a single element.
template <class T>
constexpr int wide = static_cast<int>(16 / sizeof(T));

// How the frames are cut into blocks; block b is part b % parts of frame b / parts.
struct Grid {
  int vector; // elements a thread reads at once
  int piece; // elements of those that surely belong to one group: the vector or its half
  int64_t parts; // blocks a frame
  // columns
  int lanes; // threads side by side along a row
  int slots; // rows that a block works on at once; lanes * slots <= kThreads
  int64_t tiles; // blocks side by side along a row
  int64_t part_rows; // rows a block
  // planes
  int64_t stretch; // elements a block
  int64_t group_parts; // blocks a group
};

inline int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// `aligned`: every pointer is a multiple of 16 bytes.
template <class T>
Grid cuda_grid(const Params& p, bool aligned) {
  constexpr int w = wide<T>;
  Grid grid{};
  if (p.rows == 1) {
    grid.vector = aligned && p.frame % w == 0 && p.run % w == 0 ? w : 1;
    grid.piece = grid.vector;
    grid.stretch = static_cast<int64_t>(kThreads) * grid.vector * 8;
    grid.group_parts = divide_up(p.run, grid.stretch);
    grid.parts = p.groups * grid.group_parts + divide_up(p.row - p.groups * p.run, grid.stretch);
    return grid;
  }
  // a group of fewer channels than half a vector (no known network has one) does without vectors
  const bool whole = p.run % w == 0, halves = w > 2 && p.run % (w / 2) == 0;
  grid.vector = aligned && p.row % w == 0 && (whole || halves) ? w : 1;
  grid.piece = grid.vector == 1 || whole ? grid.vector : w / 2;
  const int64_t width = divide_up(p.row, grid.vector);
  grid.tiles = divide_up(width, kThreads);
  grid.lanes = static_cast<int>(divide_up(width, grid.tiles));
  grid.slots = kThreads / grid.lanes;
  grid.part_rows = grid.slots * 8;
  grid.parts = grid.tiles * divide_up(p.rows, grid.part_rows);
  return grid;
}

// Sums come in this many parts a frame.
inline int64_t sum_parts(const Params& p, const Grid& grid) {
  return p.rows == 1 ? grid.group_parts : grid.parts;
}

template <class... Pointers>
bool aligned(const Pointers*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

template <int V, int S>
struct Access {
  static constexpr int vector = V, piece = S;
};

// Calls body(Access) for the grid's shape of access: 16 bytes of one group, of two, or single elements.
template <class T, class Body>
auto with_access(const Grid& grid, const Body& body) {
  constexpr int w = wide<T>;
  if constexpr (w > 2) {
    if (grid.piece == w / 2) {
      return body(Access<w, w / 2>());
    }
  }
  return grid.vector == w ? body(Access<w, w>()) : body(Access<1, 1>());
}

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};

template <int N, class T>
TIN_INLINE Pack<T, N> load(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <int N, class T>
TIN_INLINE void store(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Where a piece's two frames are, and what they count. `dense` is the offset of its frame's first element.
template <class A>
struct Source {
  int64_t near; // element offset of the frame that is read, -1 where none is
  int64_t far;
  A near_scale;
  A far_scale;
  bool near_used; // whether it enters the moved frame; sums read it even if not
  bool far_used;
  A fill;
};

template <class A>
TIN_INLINE Source<A> source_of(const Params& p, const Taps<A>& taps, int64_t n, bool read_unused) {
  Source<A> source;
  const int64_t clip = n * p.segments;
  source.near_used = taps.near.used;
  source.far_used = taps.far.used;
  source.near = taps.near.used || (read_unused && taps.near.frame >= 0) ? (clip + taps.near.frame) * p.frame : -1;
  source.far = taps.far.used || (read_unused && taps.far.frame >= 0) ? (clip + taps.far.frame) * p.frame : -1;
  source.near_scale = taps.near.scale;
  source.far_scale = taps.far.scale;
  source.fill = taps.fill;
  return source;
}

// A channel of no group: its own frame, unchanged (1 * x is x, and the far tap is not read).
template <class A>
TIN_INLINE Source<A> untouched(const Params& p, int64_t frame) {
  return {frame * p.frame, -1, A(1), A(0), true, false, A(0)};
}

// near_scale * near + far_scale * far, in the order of additions of the CPU kernels.
template <class A>
TIN_INLINE A blend(const Source<A>& s, A near, A far) {
  const A first = s.near_used ? s.near_scale * near : s.fill;
  return s.far_used ? (s.near_used ? first + s.far_scale * far : s.far_scale * far) : first;
}

// ---------------------------------------------------------------------------------------------------------------------
// columns

struct Column {
  int64_t frame; // of all N*T
  int64_t n, t;
  int64_t first; // element in the row
  int64_t row, end; // rows first to last, in steps of grid.slots
  bool idle;
};

TIN_INLINE Column column_of(const Params& p, const Grid& grid, int64_t block, int thread) {
  Column c;
  const int64_t part = block % grid.parts;
  const int64_t tile = part % grid.tiles, stretch = part / grid.tiles;
  const int lane = thread % grid.lanes, slot = thread / grid.lanes;
  c.frame = block / grid.parts;
  c.n = c.frame / p.segments;
  c.t = c.frame % p.segments;
  c.first = (tile * grid.lanes + lane) * grid.vector;
  c.row = stretch * grid.part_rows + slot;
  c.end = (stretch + 1) * grid.part_rows < p.rows ? (stretch + 1) * grid.part_rows : p.rows;
  c.idle = slot >= grid.slots || c.first >= p.row;
  return c;
}

// One thread of the forward pass, and of the input's gradient: the map differs, the movement is the same. With SUMS,
// `x` is read too and `sums` receives sum(near * x), sum(far * x) of each piece.
template <int V, int S, bool SUMS, class T, class TapsOf>
TIN_INLINE void columns_move(
    const Params& p, const Grid& grid, const T* __restrict__ in, const T* __restrict__ x, T* __restrict__ out,
    const Column& c, const TapsOf& taps_of, Acc<T>* sums) {
  using A = Acc<T>;
  constexpr int pieces = V / S;
  // rows read before the first is written: enough loads in flight to hide memory, few enough registers for four blocks
  constexpr int ahead = pieces > 1 || (SUMS && V == 8) ? 1 : 2, copy_ahead = 4;
  const int64_t fold = p.groups * p.run, step = grid.slots * p.row;
  const int64_t here = c.frame * p.frame + c.first;
  int64_t row = c.row, at = row * p.row;
  if (c.first >= fold) {
    if (!out) {
      return;
    }
    for (; row + (copy_ahead - 1) * grid.slots < c.end; row += copy_ahead * grid.slots, at += copy_ahead * step) {
      Pack<T, V> packs[copy_ahead];
      TIN_UNROLL for (int j = 0; j < copy_ahead; ++j) packs[j] = load<V>(in + here + at + j * step);
      TIN_UNROLL for (int j = 0; j < copy_ahead; ++j) store<V>(out + here + at + j * step, packs[j]);
    }
    for (; row < c.end; row += grid.slots, at += step) {
      store<V>(out + here + at, load<V>(in + here + at));
    }
    return;
  }
  Source<A> sources[pieces];
  TIN_UNROLL for (int q = 0; q < pieces; ++q) {
    const int64_t e = c.first + q * S;
    sources[q] = e < fold ? source_of(p, taps_of(c.n, c.t, e / p.run), c.n, SUMS) : untouched<A>(p, c.frame);
  }
  for (; row < c.end; row += ahead * grid.slots, at += ahead * step) {
    Pack<T, S> near[ahead][pieces], far[ahead][pieces], own[ahead][pieces];
    TIN_UNROLL for (int j = 0; j < ahead; ++j) {
      if (row + j * grid.slots < c.end) {
        const int64_t e = c.first + at + j * step;
        TIN_UNROLL for (int q = 0; q < pieces; ++q) {
          near[j][q] = sources[q].near >= 0 ? load<S>(in + sources[q].near + e + q * S) : Pack<T, S>{};
          far[j][q] = sources[q].far >= 0 ? load<S>(in + sources[q].far + e + q * S) : Pack<T, S>{};
          if (SUMS) own[j][q] = load<S>(x + here + at + j * step + q * S);
        }
      }
    }
    TIN_UNROLL for (int j = 0; j < ahead; ++j) {
      if (row + j * grid.slots < c.end) {
        Pack<T, V> moved;
        TIN_UNROLL for (int q = 0; q < pieces; ++q) {
          TIN_UNROLL for (int i = 0; i < S; ++i) {
            const A a = widen(near[j][q].v[i]), b = widen(far[j][q].v[i]);
            narrow(blend(sources[q], a, b), moved.v[q * S + i]);
            if (SUMS) {
              const A value = widen(own[j][q].v[i]);
              sums[q * 2] += a * value;
              sums[q * 2 + 1] += b * value;
            }
          }
        }
        if (out) store<V>(out + here + at + j * step, moved);
      }
    }
  }
}

template <int V, int S, class T>
TIN_INLINE void columns_forward(
    const Params& p, const Grid& grid, const ForwardArgs<T>& args, int64_t block, int thread) {
  const Column c = column_of(p, grid, block, thread);
  if (c.idle) {
    return;
  }
  columns_move<V, S, false, T>(
      p, grid, args.x, nullptr, args.out, c,
      [&](int64_t n, int64_t t, int64_t k) { return forward_taps(p, args.offset, args.weight, n, t, k); }, nullptr);
}

// First of the three steps of a block's backward pass; all its threads must end one before the next begins. `shared`
// has kThreads * V / S * 2 places.
template <int V, int S, bool SUMS, class T>
TIN_INLINE void columns_backward(
    const Params& p, const Grid& grid, const BackwardArgs<T>& args, int64_t block, int thread, Acc<T>* shared) {
  constexpr int pieces = V / S;
  const Column c = column_of(p, grid, block, thread);
  Acc<T> sums[pieces * 2] = {};
  if (!c.idle) {
    columns_move<V, S, SUMS, T>(
        p, grid, args.grad, args.x, args.grad_x, c,
        [&](int64_t n, int64_t s, int64_t k) { return backward_taps(p, args.offset, args.weight, n, s, k); }, sums);
  }
  if (SUMS) {
    TIN_UNROLL for (int i = 0; i < pieces * 2; ++i) shared[i * kThreads + thread] = sums[i];
  }
}

// Second step: the rows of a lane.
template <int V, int S, class T>
TIN_INLINE void columns_sum_slots(const Grid& grid, int thread, Acc<T>* shared) {
  for (int i = thread; i < grid.lanes * (V / S) * 2; i += kThreads) {
    Acc<T>* place = shared + i / grid.lanes * kThreads + i % grid.lanes;
    for (int slot = 1; slot < grid.slots; ++slot) {
      *place += place[slot * grid.lanes];
    }
  }
}

// Third step: the lanes of a group, into args.partials.
template <int V, int S, class T>
TIN_INLINE void columns_sum_lanes(
    const Params& p, const Grid& grid, const BackwardArgs<T>& args, int64_t block, int thread, const Acc<T>* shared) {
  const int64_t tile = block % grid.parts % grid.tiles;
  const int64_t low = tile * grid.lanes * V, high = low + grid.lanes * V; // elements of the row
  for (int64_t i = thread; i < p.groups * 2; i += kThreads) {
    const int64_t k = i / 2;
    const int64_t from = k * p.run > low ? k * p.run : low, to = (k + 1) * p.run < high ? (k + 1) * p.run : high;
    Acc<T> total = 0;
    for (int64_t e = from; e < to; e += S) {
      const int64_t lane = (e - low) / V, piece = (e - low) % V / S;
      total += shared[(piece * 2 + i % 2) * kThreads + lane];
    }
    args.partials[block * p.groups * 2 + i] = total;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// planes

struct Stretch {
  int64_t frame; // of all N*T
  int64_t n, t;
  int64_t k; // group, -1 for none
  int64_t part; // of the group
  int64_t first, end; // elements of the frame
};

TIN_INLINE Stretch stretch_of(const Params& p, const Grid& grid, int64_t block) {
  Stretch s;
  int64_t part = block % grid.parts;
  s.frame = block / grid.parts;
  s.n = s.frame / p.segments;
  s.t = s.frame % p.segments;
  s.k = part < p.groups * grid.group_parts ? part / grid.group_parts : -1;
  s.part = s.k < 0 ? part - p.groups * grid.group_parts : part % grid.group_parts;
  const int64_t from = s.k < 0 ? p.groups * p.run : s.k * p.run, to = s.k < 0 ? p.row : from + p.run;
  s.first = from + s.part * grid.stretch;
  s.end = s.first + grid.stretch < to ? s.first + grid.stretch : to;
  return s;
}

template <int V, bool SUMS, class T>
TIN_INLINE void planes_move(
    const Params& p, const T* __restrict__ in, const T* __restrict__ x, T* __restrict__ out, const Stretch& s,
    const Source<Acc<T>>& source, int thread, Acc<T>* sums) {
  using A = Acc<T>;
  constexpr int ahead = SUMS && V == 8 ? 1 : 2;
  constexpr int64_t step = static_cast<int64_t>(kThreads) * V;
  const int64_t here = s.frame * p.frame;
  for (int64_t e = s.first + thread * V; e < s.end; e += ahead * step) {
    Pack<T, V> near[ahead], far[ahead], own[ahead];
    TIN_UNROLL for (int j = 0; j < ahead; ++j) {
      if (e + j * step < s.end) {
        near[j] = source.near >= 0 ? load<V>(in + source.near + e + j * step) : Pack<T, V>{};
        far[j] = source.far >= 0 ? load<V>(in + source.far + e + j * step) : Pack<T, V>{};
        if (SUMS) own[j] = load<V>(x + here + e + j * step);
      }
    }
    TIN_UNROLL for (int j = 0; j < ahead; ++j) {
      if (e + j * step < s.end) {
        Pack<T, V> moved;
        TIN_UNROLL for (int i = 0; i < V; ++i) {
          const A a = widen(near[j].v[i]), b = widen(far[j].v[i]);
          narrow(blend(source, a, b), moved.v[i]);
          if (SUMS) {
            const A value = widen(own[j].v[i]);
            sums[0] += a * value;
            sums[1] += b * value;
          }
        }
        if (out) store<V>(out + here + e + j * step, moved);
      }
    }
  }
}

template <int V, class T>
TIN_INLINE void planes_forward(
    const Params& p, const Grid& grid, const ForwardArgs<T>& args, int64_t block, int thread) {
  const Stretch s = stretch_of(p, grid, block);
  const auto source = s.k < 0
      ? untouched<Acc<T>>(p, s.frame)
      : source_of(p, forward_taps(p, args.offset, args.weight, s.n, s.t, s.k), s.n, false);
  planes_move<V, false, T>(p, args.x, nullptr, args.out, s, source, thread, nullptr);
}

// First of three steps, as columns_backward; `shared` has kThreads * 2 places.
template <int V, bool SUMS, class T>
TIN_INLINE void planes_backward(
    const Params& p, const Grid& grid, const BackwardArgs<T>& args, int64_t block, int thread, Acc<T>* shared) {
  const Stretch s = stretch_of(p, grid, block);
  Acc<T> sums[2] = {};
  if (s.k >= 0) {
    const auto source = source_of(p, backward_taps(p, args.offset, args.weight, s.n, s.t, s.k), s.n, SUMS);
    planes_move<V, SUMS, T>(p, args.grad, args.x, args.grad_x, s, source, thread, sums);
  } else if (args.grad_x) {
    planes_move<V, false, T>(
        p, args.grad, nullptr, args.grad_x, s, untouched<Acc<T>>(p, s.frame), thread, nullptr);
  }
  if (SUMS) {
    shared[thread] = sums[0];
    shared[kThreads + thread] = sums[1];
  }
}

// Second step: 2 * 16 threads add 16 places each.
template <class T>
TIN_INLINE void planes_sum_sixteenths(int thread, Acc<T>* shared) {
  if (thread < 32) {
    Acc<T>* place = shared + thread / 16 * kThreads + thread % 16;
    for (int i = 16; i < kThreads; i += 16) {
      *place += place[i];
    }
  }
}

// Third step, into args.partials.
template <class T>
TIN_INLINE void planes_sum(
    const Params& p, const Grid& grid, const BackwardArgs<T>& args, int64_t block, int thread, const Acc<T>* shared) {
  const Stretch s = stretch_of(p, grid, block);
  if (s.k >= 0 && thread < 2) {
    Acc<T> total = 0;
    for (int i = 0; i < 16; ++i) {
      total += shared[thread * kThreads + i];
    }
    args.partials[((s.frame * grid.group_parts + s.part) * p.groups + s.k) * 2 + thread] = total;
  }
}

} // namespace tin
