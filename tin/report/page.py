"""A report as one HTML page that needs nothing but itself: styles, scripts, numbers and pictures are all inside."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import os
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tin.errors import TinError
from tin.report.numbers import Metric, Report
from tin.report.offsets import LIMIT

_SCRIPTS = ("table.js", "heatmap.js", "offsets.js", "main.js")
_QUALITY = 75  # of JPEG: about 3 kB a frame of 112²
_FRAMES_A_LINE = 8
_SHOWN_SIDE = 112  # pixels of the page that smaller frames are enlarged to, by a whole factor
_WORST_NOTE = "Wrong predictions, the most confident first. "

Frames = Mapping[str, NDArray[np.uint8] | str]


def render_page(report: Report, frames: Frames | None = None) -> str:
    """The page.

    Nothing in it is fetched: a Content-Security-Policy allows its own style and script by their hashes, pictures that are part of it, and
    nothing else. Names from files are escaped, and the script sets them as text.

    Args:
        report: of `tin.report.make_report`.
        frames: id of a video → what the model saw of it, uint8 (T, height, width, 3) RGB, or why that cannot be shown. For the videos of
            `report.worst`; without them the list says so.
    """
    style = _asset("style.css")
    script = '"use strict";\n{\n' + "\n".join(_asset(name) for name in _SCRIPTS) + "}\n"
    parts, sections = _parts(report, frames or {})
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return Template(_asset("page.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        title=_text(report.title),
        heading=_text(report.title),
        facts="".join(f"<dt>{_text(term)}</dt><dd><bdi>{_text(fact)}</bdi></dd>\n" for term, fact in report.facts),
        sections="".join(f'<a href="#{id}">{title}</a>\n' for id, title in sections),
        metrics=_metrics(report),
        coverage=_text(report.coverage),
        parts=parts,
        data=_data(report),
    )


def write_page(path: Path, text: str) -> None:
    """Write the page whole or not at all.

    Raises:
        TinError: the folder cannot be made or written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(text.encode("utf-8", "replace"))  # a name may have bytes that are no UTF-8
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise TinError(f"cannot write {path}: {error.strerror or error}") from None


# ---------------------------------------------------------------------------------------------------------------------
# sections


def _parts(report: Report, frames: Frames) -> tuple[str, list[tuple[str, str]]]:
    """The sections that not every report has, and all sections as (id, title)."""
    parts: list[tuple[str, str, str]] = []
    if report.matrix is not None:
        heat_map = (
            '<p id="heatmap-help" class="screen quiet">Point at a cell to read it. From the keyboard: arrow keys (with Shift by ten), '
            'Home, End, Page Up, Page Down. A click or Enter lists its videos.</p>\n<div id="heatmap"></div>\n'
        )
        confused = (
            '<h3>Most confused</h3>\n<div id="pairs"></div>\n'
            if report.pairs
            else "<p>No video is predicted wrong.</p>\n"
        )
        parts = [
            ("worst", "Worst videos", _worst(report, frames)),
            ("classes", "Classes", '<div id="classes-table"></div>\n'),
            ("confusion", "Confusion", heat_map + confused),
        ]
    if report.ids:
        parts.append(("videos", "Videos", '<div id="videos-table"></div>\n'))
    if report.offsets is not None:
        parts.append(("offsets", "Learned offsets", '<div id="offsets-chart"></div>\n'))
    text = "".join(
        f'<section id="{id}" aria-labelledby="{id}-title">\n<h2 id="{id}-title" tabindex="-1">{title}</h2>\n{body}</section>\n'
        for id, title, body in parts
    )
    return text, [("metrics", "Metrics"), ("coverage", "Coverage"), *((id, title) for id, title, _ in parts)]


def _metrics(report: Report) -> str:
    if not report.metrics:
        return f"<p>{_text(report.no_metrics)}</p>"
    rows = "".join(_metric(metric) for metric in report.metrics)
    interval = "95 % interval"
    return (
        f'<table id="metrics-table"><thead><tr><th scope="col">metric</th><th scope="col" class="number">value</th>'
        f'<th scope="col" class="number">{interval}</th><th scope="col"><span class="hidden">drawn from 0 to 100 %</span></th></tr></thead>'
        f'<tbody>{rows}</tbody></table>\n<p class="quiet">{_text(report.interval_note)}</p>'
    )


def _metric(metric: Metric) -> str:
    value = f"{100 * metric.value:.2f} %"
    interval, drawn = "–", ""
    if metric.interval is not None:
        low, high = metric.interval
        interval = f"{100 * low:.2f} – {100 * high:.2f} %"
        drawn = f'<rect class="span" x="{100 * low:.2f}" y="2" width="{max(0.3, 100 * (high - low)):.2f}" height="6"/>'
    mark = f'<rect class="value" x="{100 * metric.value - 0.4:.2f}" y="1" width="0.8" height="8"/>'
    picture = (
        '<svg class="interval" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" x="0" y="4.5" width="100" height="1"/>{drawn}{mark}</svg>'
    )
    return (
        f'<tr><th scope="row">{_text(metric.title)}</th><td class="number">{value}</td><td class="number">{interval}</td>'
        f"<td>{picture}</td></tr>\n"
    )


def _worst(report: Report, frames: Frames) -> str:
    if not report.worst:
        return "<p>No video is predicted wrong.</p>\n"
    items = []
    for row in report.worst:
        id, label, prediction = report.ids[row], int(report.labels[row]), int(report.predictions[row])
        seen = frames.get(id, "they were not asked for")
        if isinstance(seen, str):
            picture = f'<p class="note">No frames: {_text(seen)}</p>'
        else:
            picture = _picture(seen, f"{len(seen)} frames of {id}, as the model saw them")
        items.append(
            f"<li><p><bdi>{_text(id)}</bdi>: <bdi>{_text(report.names[prediction])}</bdi> with {100 * report.confidences[row]:.2f} %, "
            f"is <bdi>{_text(report.names[label])}</bdi></p>{picture}</li>\n"
        )
    return f'<p class="quiet">{_WORST_NOTE}{_text(report.view_note)}</p>\n<ol class="worst">\n{"".join(items)}</ol>\n'


def _picture(frames: NDArray[np.uint8], description: str) -> str:
    """Frames side by side as one JPEG."""
    from PIL import Image

    count, height, width = frames.shape[:3]
    across = min(count, _FRAMES_A_LINE)
    sheet = Image.new("RGB", (across * width, -(-count // across) * height), "white")
    for number, frame in enumerate(frames):
        sheet.paste(Image.fromarray(frame), (number % across * width, number // across * height))
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=_QUALITY)
    encoded = base64.b64encode(file.getvalue()).decode()
    factor = max(1, _SHOWN_SIDE // max(width, height))
    size = f'width="{factor * sheet.width}" height="{factor * sheet.height}"'
    return f'<img src="data:image/jpeg;base64,{encoded}" {size} alt="{_text(description)}">'


# ---------------------------------------------------------------------------------------------------------------------
# data


def _data(report: Report) -> str:
    """What the script draws, as JSON that no name in it can end."""
    content: dict[str, Any] = {
        "names": report.names,
        "videos": {
            "ids": report.ids,
            "labels": report.labels.tolist(),
            "predictions": report.predictions.tolist(),
            "confidences": (10_000 * report.confidences).round().astype(int).tolist(),
        },
        "failures": report.failures,
        "classes": None,
        "offsets": None,
    }
    if report.matrix is not None:
        rows, columns = report.matrix.nonzero()
        content["classes"] = {
            "videos": report.matrix.sum(axis=1).tolist(),
            "predicted": report.matrix.sum(axis=0).tolist(),
            "correct": report.matrix.diagonal().tolist(),
        }
        content["confusion"] = np.stack([rows, columns, report.matrix[rows, columns]], axis=1).ravel().tolist()
        content["pairs"] = report.pairs
    if report.offsets is not None:
        content["offsets"] = {
            "limit": LIMIT,
            "epochs": report.offsets.epochs,
            "blocks": report.offsets.blocks,
            "values": report.offsets.values.round(4).tolist(),
        }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return files("tin.report").joinpath("page", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(text: str) -> str:
    return html.escape(text, quote=True)
