"""Matplotlib figures as arrays of pixels, without a display."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in pixels."""
    from matplotlib.figure import Figure  # half a second, and the main process alone draws

    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")


def rendered(figure: Figure) -> NDArray[np.uint8]:
    """(H, W, 3) RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():  # a box stands for what the font has not, Chinese for example
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
