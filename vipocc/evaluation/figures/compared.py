"""Grids of several reports on the frames that all of them picture, from what each keeps in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from vipocc.evaluation.figures import drawing
from vipocc.evaluation.figures.depths import Distributions
from vipocc.evaluation.figures.pictured import DISTRIBUTIONS, Pictured, read_pictured
from vipocc.evaluation.report import Frame

T = TypeVar("T")


def compared(folders: Mapping[str, Path]) -> list[drawing.Drawn]:
    """Return the figures of reports side by side: cubes, errors from above, depth and its distributions.

    One method of each report is shown, its first (of depth, the branch's), under the report's name.

    Args:
        folders: of the reports by name, in order.

    Raises:
        DataError: what a report keeps is damaged.
    """
    held = {name: read_pictured(folder) for name, folder in folders.items()}
    frames = [joined(held, frame) for frame in shared(list(held.values()))]
    found = [drawing.compared_occupancy(frames), drawing.compared_above(frames), drawing.compared_depth(frames)]
    return [one for one in (*found, _distributions(folders)) if one is not None]


def nothing_shared(folders: Mapping[str, Path]) -> str:
    """Return a sentence if reports picture frames, but none that all of them picture; else nothing."""
    held = [read_pictured(folder) for folder in folders.values()]
    if not any(held) or shared(held):
        return ""
    return "No frame is pictured by all reports: evaluate the same frames, or name some with --picture SEQ/FRAME."


def shared(held: Sequence[Mapping[Frame, Pictured]]) -> list[Frame]:
    """Return the frames that all reports picture, in the first one's order."""
    return [frame for frame in held[0] if all(frame in one for one in held)] if held else []


def joined(held: Mapping[str, Mapping[Frame, Pictured]], frame: Frame) -> Pictured:
    """Return a frame with one method of each report, called by the report's name."""
    first = next(iter(held.values()))[frame]
    made = Pictured(frame, first.image, true_depth=first.true_depth, occupied=first.occupied, visible=first.visible)
    for name, frames in held.items():
        one = frames[frame]
        shown = drawing.shown_depth(one.depths)
        if shown is not None:
            made.depths[name] = one.depths[shown]
        made.slices |= _under(name, one.slices)
        made.volumes |= _under(name, one.volumes)
    return made


def _distributions(folders: Mapping[str, Path]) -> drawing.Drawn | None:
    counts: dict[str, NDArray[Any]] = {}
    frames = 0
    for name, folder in folders.items():
        if not (folder / DISTRIBUTIONS).is_file():
            continue
        held = Distributions.read(folder / DISTRIBUTIONS)
        shown = drawing.shown_depth({one: None for one in held.counts if one not in ("truth", "prior")})
        if not counts:
            frames = held.frames
            counts = {one: held.counts[one] for one in ("truth", "prior") if one in held.counts}
        if shown is not None:
            counts[name] = held.counts[shown]
    return drawing.depth_distributions(counts, frames)


def _under(name: str, held: Mapping[str, T]) -> dict[str, T]:
    return {name: next(iter(held.values()))} if held else {}
