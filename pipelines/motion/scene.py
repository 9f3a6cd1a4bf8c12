"""One random scene of the motion data set: a textured object over a textured background, drawn frame by frame.

Only the order of a scene's frames tells its class: `MOTIONS` pairs every class with the one that the reversed frames show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CLASSES = ("left", "right", "up", "down", "grow", "shrink", "clockwise", "anticlockwise")
MOTIONS = tuple(zip(CLASSES[0::2], CLASSES[1::2], strict=True))

_SHAPES = ("disc", "square", "triangle", "star", "bar", "blob")
_TEXTURES = ("halves", "stripes", "checker", "spots", "gradient")
_BACKGROUNDS = ("gradient", "noise", "checker", "stripes", "blobs")
_ANGLES = 1024  # entries of a shape's outline table

Array = npt.NDArray[np.float32]


def reversed_label(label: int) -> int:
    """The class index that a clip of class `label` shows when its frames run backwards."""
    return label ^ 1


@dataclass(frozen=True)
class Path:
    """Where the object is in each frame; every array is (frames,), float32.

    Attributes:
        x, y: the centre, in units of the frame's side, from its top left corner; y points down.
        radius: the object's radius in the same units.
        angle: its rotation in radians; growing angles turn clockwise on the screen.
    """

    x: Array
    y: Array
    radius: Array
    angle: Array


def draw_path(label: int, num_frames: int, rng: np.random.Generator) -> Path:
    """A random path of class `label` (an index into `CLASSES`) over `num_frames` frames.

    The path of the reversed class has the same distribution, reversed in time: each is drawn as the even class of its pair and
    turned round for the odd one. Besides its own motion every object drifts, turns and swells a little, in either sense.
    """
    time = np.linspace(-1.0, 1.0, num_frames)
    # An odd function of time, still monotone: faster or slower in the middle than at the ends, and the same when reversed.
    time = time + rng.uniform(-0.2, 0.2) * np.sin(np.pi * time)
    half = np.zeros(4)  # half of the way covered in x, y, log radius, angle
    half[:] = rng.uniform(-1.0, 1.0, 4) * (0.03, 0.03, 0.04, 0.12)
    kind = label // 2
    radius = rng.uniform(0.16, 0.26)
    if kind == 0:
        half[0] = -rng.uniform(0.2, 0.28)
    elif kind == 1:
        half[1] = -rng.uniform(0.2, 0.28)
    elif kind == 2:
        half[2] = rng.uniform(0.32, 0.5)
    else:
        half[3] = np.radians(rng.uniform(100.0, 150.0))
        radius = rng.uniform(0.28, 0.38)
    if label % 2:
        time = -time
    # Most of the object stays inside the frame, whatever the crop of training takes away.
    room = np.maximum(min(0.36, 0.52 - radius) - np.abs(half[:2]), 0.0)
    x0, y0 = 0.5 + rng.uniform(-1.0, 1.0, 2) * room
    angle0 = rng.uniform(0.0, 2 * np.pi)
    values = (
        x0 + half[0] * time,
        y0 + half[1] * time,
        radius * np.exp(half[2] * time),
        angle0 + half[3] * time,
    )
    return Path(*(value.astype(np.float32) for value in values))


def render(label: int, num_frames: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one scene of class `label`: (num_frames, size, size, 3) uint8, RGB.

    The camera stands still; background, distractors, object, texture, colours and path are drawn from `rng`, and every frame gets
    its own faint noise. The same generator state gives bit-identical frames.
    """
    path = draw_path(label, num_frames, rng)
    canvas, ground_colour = _background(size, rng)
    first, second = _object_colours(ground_colour, rng)
    for _ in range(rng.integers(0, 3)):
        _paste_distractor(canvas, rng)
    outline = _outline(rng)
    texture = str(rng.choice(_TEXTURES))
    cycles = rng.uniform(0.9, 1.6)
    frames = np.broadcast_to(canvas, (num_frames, size, size, 3)).copy()
    for i in range(num_frames):
        window, u, v, distance = _object_coordinates(path.x[i], path.y[i], path.radius[i], path.angle[i], outline, size)
        alpha = np.clip(0.5 + distance, 0.0, 1.0)[..., None]
        tone = _texture(texture, u, v, cycles)[..., None]
        patch = frames[i][window]
        patch += alpha * (first + tone * (second - first) - patch)
    frames += rng.standard_normal(frames.shape, dtype=np.float32) * np.float32(rng.uniform(0.5, 2.0))
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _object_coordinates(
    x: float, y: float, radius: float, angle: float, outline: Array, size: int
) -> tuple[tuple[slice, slice], Array, Array, Array]:
    """The window that the object covers, the object's own coordinates (u, v; unit disc) there, and the pixels from each point to
    the outline along the ray from the centre (positive inside)."""
    reach = float(radius * outline.max()) * size + 1.0
    rows = slice(max(0, int(y * size - reach)), min(size, int(y * size + reach) + 2))
    columns = slice(max(0, int(x * size - reach)), min(size, int(x * size + reach) + 2))
    dy = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5) / size - y
    dx = (np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + 0.5) / size - x
    cos, sin = np.cos(angle) / radius, np.sin(angle) / radius
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    entry = (np.arctan2(v, u) * np.float32(_ANGLES / (2 * np.pi))).astype(np.int32) % _ANGLES
    distance = (outline[entry] - np.hypot(u, v)) * np.float32(radius * size)
    return (rows, columns), u, v, distance


def _outline(rng: np.random.Generator) -> Array:
    """A random shape as the distance of its edge from the centre at `_ANGLES` angles; the largest is about 1."""
    angle = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    shape = str(rng.choice(_SHAPES))
    if shape == "disc":
        edge = np.ones(_ANGLES)
    elif shape in ("square", "triangle"):
        corners = 4 if shape == "square" else 3
        sector = 2 * np.pi / corners
        edge = np.cos(sector / 2) / np.cos(angle % sector - sector / 2)
    elif shape == "star":
        points = rng.integers(4, 7)
        edge = 0.78 + 0.22 * np.cos(points * angle)
    elif shape == "bar":
        aspect = rng.uniform(0.45, 0.65)
        edge = np.minimum(
            0.9 / np.maximum(np.abs(np.cos(angle)), 1e-6), aspect / np.maximum(np.abs(np.sin(angle)), 1e-6)
        )
    else:
        waves = np.arange(2, 6)
        phases, heights = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.0, 0.25, 4) / waves * 2
        edge = 1.0 + (heights[:, None] * np.cos(waves[:, None] * angle + phases[:, None])).sum(axis=0)
        edge /= edge.max()
    return edge.astype(np.float32)


def _texture(kind: str, u: Array, v: Array, cycles: float) -> Array:
    """How much of the object's second colour each point has, 0…1. No texture looks the same after a turn of less than 90°."""
    if kind == "halves":
        return np.clip(0.5 + 6 * u, 0, 1)
    if kind == "stripes":
        return np.clip(0.5 + 2 * np.sin(np.pi * cycles * u), 0, 1)
    if kind == "checker":
        return np.clip(0.5 + 3 * np.sin(np.pi * u) * np.sin(np.pi * v), 0, 1)
    if kind == "spots":
        near = np.minimum(np.hypot(u - 0.45, v), np.hypot(u + 0.1, v - 0.45))
        return np.clip(6 * (0.36 - near) + 0.5, 0, 1)
    return np.clip(0.5 + 0.55 * u, 0, 1)


def _background(size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """A still background (size, size, 3) and its mean colour (3,), both float32 on the scale 0…255."""
    colour = rng.uniform(20, 120, 3)
    delta = rng.uniform(-30, 30, 3)
    axis = (np.arange(size) + 0.5) / size
    turn = rng.uniform(0, 2 * np.pi)
    along = np.cos(turn) * axis[None, :] + np.sin(turn) * axis[:, None]
    across = np.cos(turn) * axis[:, None] - np.sin(turn) * axis[None, :]
    kind = str(rng.choice(_BACKGROUNDS))
    cycles = rng.uniform(2.0, 6.0)
    if kind == "gradient":
        tone = 1.5 * (along - along.mean())
    elif kind == "noise":
        tone = sum(_smooth_noise(size, cells, rng) / weight for cells, weight in ((4, 1.2), (9, 2.0), (21, 3.0)))
    elif kind == "checker":
        tone = np.clip(4 * np.sin(2 * np.pi * cycles * along) * np.sin(2 * np.pi * cycles * across), -0.7, 0.7)
    elif kind == "stripes":
        tone = np.clip(2 * np.sin(2 * np.pi * cycles * along), -0.7, 0.7)
    else:
        tone = np.clip(3 * _smooth_noise(size, int(rng.integers(3, 7)), rng), -0.8, 0.8)
    canvas = np.clip(colour + np.asarray(tone)[..., None] * delta, 0, 255).astype(np.float32)
    return canvas, canvas.mean(axis=(0, 1))


def _smooth_noise(size: int, cells: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Random values on a grid of `cells` cells a side, cubically smoothed between them: (size, size), within −1…1."""
    grid = rng.uniform(-1, 1, (cells + 1, cells + 1))
    position = (np.arange(size) + 0.5) * (cells / size)
    cell = position.astype(int)
    fraction = position - cell
    blend = fraction * fraction * (3 - 2 * fraction)
    rows = grid[cell] * (1 - blend)[:, None] + grid[cell + 1] * blend[:, None]
    return rows[:, cell] * (1 - blend) + rows[:, cell + 1] * blend


def _object_colours(ground: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Two colours (3,) for the object, far from each other and at least one far from the background's mean."""
    first = rng.uniform(170, 255, 3)
    second = rng.uniform(0, 255, 3)
    while np.abs(first - second).mean() < 70:
        second = rng.uniform(0, 255, 3)
    return first.astype(np.float32), second.astype(np.float32)


def _paste_distractor(canvas: Array, rng: np.random.Generator) -> None:
    """Draw one small plain shape, which never moves, onto the background."""
    x, y = rng.uniform(0.05, 0.95, 2)
    window, _, _, distance = _object_coordinates(
        x, y, rng.uniform(0.04, 0.09), rng.uniform(0, 2 * np.pi), _outline(rng), len(canvas)
    )
    patch = canvas[window]
    patch += np.clip(0.5 + distance, 0, 1)[..., None].astype(np.float32) * (
        rng.uniform(0, 255, 3).astype(np.float32) - patch
    )
