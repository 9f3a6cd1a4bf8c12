"""The toolkit's own data set: short rendered videos of eight motions that only the order of the frames tells apart."""

from __future__ import annotations

from pipelines.motion.dataset import MotionSettings, MotionSummary, Scene, plan_scenes, render_scene, write_motion
from pipelines.motion.scene import CLASSES, MOTIONS, reversed_label

__all__ = [
    "CLASSES",
    "MOTIONS",
    "MotionSettings",
    "MotionSummary",
    "Scene",
    "plan_scenes",
    "render_scene",
    "reversed_label",
    "write_motion",
]
