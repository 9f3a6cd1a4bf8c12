// The grids of the CUDA kernels and what both formats' threads share. What a thread does is a plain function of block
// and thread (interlace_columns.h, interlace_planes.h), so that a test walks the grids on the CPU.
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

TIN_INLINE int64_t divide_up(int64_t a, int64_t b) {
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

template <class T, int N>
TIN_INLINE void add_pack(Pack<T, N>& to, const Pack<T, N>& pack) {
  TIN_UNROLL for (int i = 0; i < N; ++i) narrow(widen(to.v[i]) + widen(pack.v[i]), to.v[i]);
}

// What the backward pass reads besides the gradient that it moves; nothing in the forward pass.
template <class T>
struct Beside {
  const T* x; // null unless sums are made
  int64_t x_row, x_frame;
  const T* passed; // added to what is written, null for nothing
};

template <class T>
TIN_INLINE Beside<T> beside(const BackwardArgs<T>& args) {
  return {args.x, args.x_row, args.x_frame, args.passed};
}

// Where a piece's two frames are, and what they count.
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

} // namespace tin
