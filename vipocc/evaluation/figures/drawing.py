"""Figures of the paper from pictured frames, with their captions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.evaluation.figures import depths, occupancy
from vipocc.evaluation.figures.canvas import below, margin, titled
from vipocc.evaluation.figures.pictured import Pictured
from vipocc.evaluation.figures.voxels import VOLUME, side_view, voxel_view
from vipocc.evaluation.report import Figure, Frame
from vipocc.pictures import Image, jpeg_bytes, png_bytes

IMAGES = "figures"
"""Folder of the PNG files in a report's."""
METHODS = 4
"""Columns of a comparison beside the image and the truth; more do not fit across a page."""
_METRES = "Depth in metres; the same colour is the same depth everywhere."
_CUBES = (
    f"Cubes of {VOLUME.cell:g} m that are predicted occupied, seen from behind the camera, from the right and above; "
    "the darker, the lower. What lies outside of the image is not drawn."
)
_SIDE = "From the side: the darker, the more of the width is occupied there."
_ABOVE = "From above, forward up: the truth, then each method's errors."


@dataclass(frozen=True)
class Drawn:
    """A figure as it was drawn."""

    title: str
    caption: str
    image: Image
    frame: Frame | None = None

    def figure(self) -> Figure:
        """Return it for a page, as a JPEG, for pages are to stay small."""
        return Figure(self.title, self.caption, jpeg_bytes(self.image), self.frame)

    def png(self) -> bytes:
        """Return it for a file."""
        return png_bytes(self.image)


def drawn(title: str, caption: str, picture: Image, frame: Frame | None = None) -> Drawn:
    """Return a figure with a margin."""
    return Drawn(title, caption, margin(picture), frame)


def scene(one: Pictured) -> Drawn:
    """Figure 1: all that is known of one frame, of the first method that has it."""
    shown = shown_depth(one.depths)
    depth = None
    if shown is not None:
        depth = depths.depth_maps(one.image, {shown: one.depths[shown]})
    cubes = side = above = None
    if one.volumes:
        first = next(iter(one.volumes))
        cubes = titled(voxel_view(one.volumes[first], VOLUME, (340, 520)), first)
        side = titled(side_view(one.volumes[first]), f"{first}, from the side")
    if one.occupied is not None and one.visible is not None:
        above = occupancy.above(_first(one.slices, 2), one.occupied, one.visible)
    caption = " ".join(
        text
        for text, there in (
            (f"Depth: {shown}.", shown is not None),
            (_CUBES, cubes is not None),
            (_SIDE, side is not None),
            (_ABOVE, above is not None),
        )
        if there
    )
    picture = occupancy.scene(one.image, depth, cubes, above, side)
    return drawn(named(one.frame), caption or "The image.", picture, one.frame)


def maps(one: Pictured) -> Drawn:
    """All depth maps of one frame."""
    shown = {name: one.depths[name] for name in _pipeline(one.depths)}
    picture = depths.depth_maps(one.image, shown, one.true_depth)
    return drawn(named(one.frame), _METRES, picture, one.frame)


def compared_occupancy(frames: Sequence[Pictured], title: str = "Occupancy, compared") -> Drawn | None:
    """Figures 4 and 9: each method's cubes on the same frames; None if there are none."""
    methods = _methods([one.volumes for one in frames])
    frames = [one for one in frames if one.volumes]
    if not frames or not methods:
        return None
    volumes = {name: [one.volumes.get(name) for one in frames] for name in methods}
    picture = occupancy.comparison([one.image for one in frames], volumes, [label(one.frame) for one in frames])
    return drawn(title, _CUBES, picture)


def compared_above(frames: Sequence[Pictured], title: str = "Occupancy from above, compared") -> Drawn | None:
    """Each method's errors from above on the same frames; None if there are none."""
    parts = [
        occupancy.above({name: one.slices[name] for name in _methods([one.slices])}, one.occupied, one.visible)
        for one in frames
        if one.slices and one.occupied is not None and one.visible is not None
    ]
    if not parts:
        return None
    return drawn(title, _ABOVE, below(parts))


def compared_depth(frames: Sequence[Pictured], title: str = "Depth, compared") -> Drawn | None:
    """Figures 6 and 10: each method's depth on the same frames; None if there are none."""
    methods = _methods([one.depths for one in frames])
    frames = [one for one in frames if one.depths]
    if not frames or not methods:
        return None
    held = {name: [one.depths.get(name) for one in frames] for name in _pipeline(methods)}
    truths = [one.true_depth for one in frames]
    picture = depths.comparison(
        [one.image for one in frames], held, [label(one.frame) for one in frames], truths, width=300
    )
    return drawn(title, _METRES, picture)


def depth_distributions(counts: Mapping[str, NDArray[Any]], frames: int) -> Drawn | None:
    """Figure 5; None if nothing was counted."""
    if not any(np.sum(one) for one in counts.values()):
        return None
    caption = (
        f"Share of the pixels whose true depth is known, over {frames:,} frames (at most {depths.SAMPLED:,} of each, "
        "evenly spaced). The last bar holds what is farther, too."
    )
    return drawn("Depth distributions", caption, depths.distributions(counts))


def png_files(figures: Sequence[Drawn]) -> dict[str, bytes]:
    """Return figures as PNG files by their path in a report's folder, in order."""
    return {f"{IMAGES}/{number:02d}-{slug(one.title)}.png": one.png() for number, one in enumerate(figures, 1)}


def slug(title: str) -> str:
    """Return a title as part of a file's name."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def shown_depth(held: Mapping[str, Any]) -> str | None:
    """Return whose depth a picture shows: the branch's, else rendered depth, else the first; None without any."""
    for wanted in ("branch", "rendered"):
        for name in held:
            if name == wanted or name.endswith(f": {wanted}"):
                return name
    return next(iter(held), None)


def named(frame: Frame) -> str:
    """Return a frame's name for a heading."""
    return f"{frame.sequence}, frame {frame.frame_id}"


def label(frame: Frame) -> str:
    """Return a frame's name, short enough to stand beside a row."""
    return f"frame {frame.frame_id}"


def _methods(held: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the first methods that a comparison has room for, in the order they first come in."""
    return list(dict.fromkeys(name for one in held for name in one))[:METHODS]


def _pipeline(names: Iterable[str]) -> list[str]:
    """Return what goes in before what comes out of it: the prior, the branch, rendered depth, the others."""
    order = ("prior", "branch", "rendered")
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def _first(held: Mapping[str, Any], count: int) -> dict[str, Any]:
    return dict(list(held.items())[:count])
