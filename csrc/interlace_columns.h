// What a thread of the CUDA kernels for channels_last does: it owns up to 16 bytes of channels and goes down the pixels
// of its part of a frame; the frames it reads and their coefficients are found once.
#pragma once

#include "interlace_grid.h"

namespace tin {

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
// x is read too and `sums` receives sum(near * x), sum(far * x) of each piece.
template <int V, int S, bool SUMS, class T, class TapsOf>
TIN_INLINE void columns_move(
    const Params& p, const Grid& grid, const T* __restrict__ in, const Beside<T>& more, T* __restrict__ out,
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
      TIN_UNROLL for (int j = 0; j < copy_ahead; ++j) {
        if (more.passed) add_pack(packs[j], load<V>(more.passed + here + at + j * step));
        store<V>(out + here + at + j * step, packs[j]);
      }
    }
    for (; row < c.end; row += grid.slots, at += step) {
      Pack<T, V> pack = load<V>(in + here + at);
      if (more.passed) add_pack(pack, load<V>(more.passed + here + at));
      store<V>(out + here + at, pack);
    }
    return;
  }
  Source<A> sources[pieces];
  TIN_UNROLL for (int q = 0; q < pieces; ++q) {
    const int64_t e = c.first + q * S;
    sources[q] = e < fold ? source_of(p, taps_of(c.n, c.t, e / p.run), c.n, SUMS) : untouched<A>(p, c.frame);
  }
  const T* __restrict__ x = SUMS ? more.x + c.frame * more.x_frame + c.first : nullptr;
  for (; row < c.end; row += ahead * grid.slots, at += ahead * step) {
    Pack<T, S> near[ahead][pieces], far[ahead][pieces], own[ahead][pieces];
    TIN_UNROLL for (int j = 0; j < ahead; ++j) {
      if (row + j * grid.slots < c.end) {
        const int64_t e = c.first + at + j * step;
        TIN_UNROLL for (int q = 0; q < pieces; ++q) {
          near[j][q] = sources[q].near >= 0 ? load<S>(in + sources[q].near + e + q * S) : Pack<T, S>{};
          far[j][q] = sources[q].far >= 0 ? load<S>(in + sources[q].far + e + q * S) : Pack<T, S>{};
          if (SUMS) own[j][q] = load<S>(x + (row + j * grid.slots) * more.x_row + q * S);
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
        if (!out) continue;
        if (more.passed) add_pack(moved, load<V>(more.passed + here + at + j * step));
        store<V>(out + here + at + j * step, moved);
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
      p, grid, args.x, Beside<T>{}, args.out, c,
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
        p, grid, args.grad, beside(args), args.grad_x, c,
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

} // namespace tin
