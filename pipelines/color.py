"""How the colours of a training clip are changed: one draw a clip, the same for all its frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import SettingsError

UNCHANGED = np.array([1.0, 1.0, 1.0, 0.0], dtype=np.float32)
"""Brightness, contrast and saturation factors and the turn of the hue that leave a clip as it is."""


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Ranges as torchvision's ColorJitter takes them: a factor is uniform in [max(0, 1 − x), 1 + x], and the hue turns by a
    uniform part of the colour circle in [−hue, hue].

    The pixels are DALI's `color_twist`: hue and saturation in YIQ, then contrast about mid-grey (128), then brightness, one
    linear map rounded once to 0…255. torchvision takes the four in random order, turns the hue in HSV, and has contrast
    about the frame's mean grey.

    Raises SettingsError for a range that is negative or not finite, a hue over 0.5, or when all four are 0.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """At most 0.5, half the circle."""
    probability: float = 1.0
    """Part of the clips that are changed at all (0.8 in SimCLR and MoCo v2)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
                raise SettingsError(f"color_jitter.{field.name} {value!r} must be a number of at least 0")
        if self.hue > 0.5:
            raise SettingsError(f"color_jitter.hue {self.hue} is a part of the colour circle: it must be at most 0.5")
        if self.probability > 1:
            raise SettingsError(f"color_jitter.probability {self.probability} must be between 0 and 1")
        if not any((self.brightness, self.contrast, self.saturation, self.hue)):
            raise SettingsError(
                "color_jitter changes nothing: set brightness, contrast, saturation or hue, or leave it out"
            )

    @classmethod
    def from_mapping(cls, settings: Mapping[str, float]) -> ColorJitter:
        """From a recipe's table. Raises SettingsError for a field that there is not."""
        names = [field.name for field in fields(cls)]
        if unknown := [name for name in settings if name not in names]:
            raise SettingsError(f"color_jitter has no {unknown[0]!r}: its fields are {', '.join(names)}")
        return cls(**settings)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """(4,) brightness, contrast and saturation factors, and the turn of the hue in degrees.

        Five numbers are drawn whatever the settings, so changing one range leaves the other draws as they are.
        """
        chance, *draws = rng.random(5)
        if chance >= self.probability:
            return UNCHANGED.copy()
        factors = [
            low + draw * (1 + x - low)
            for x, draw in zip((self.brightness, self.contrast, self.saturation), draws, strict=False)
            for low in [max(0.0, 1 - x)]
        ]
        return np.array([*factors, 360 * self.hue * (2 * draws[3] - 1)], dtype=np.float32)
