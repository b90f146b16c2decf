"""Figures 1 and 3 to 10 of the paper for a workspace: from what its reports keep, and from its stores.

What a figure needs and the workspace has not is told with the command that makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.data_manifests.views import prepared_intrinsics, prepared_poses, sample_views
from vipocc.errors import DataError, MissingInputError
from vipocc.evaluation.figures import drawing, rays, rig
from vipocc.evaluation.figures.compared import compared
from vipocc.evaluation.figures.depths import Distributions
from vipocc.evaluation.figures.drawing import Drawn, drawn, slug
from vipocc.evaluation.figures.pictured import DISTRIBUTIONS, FOLDER, Pictured, read_pictured
from vipocc.evaluation.inputs import committed, frame_of, group_of, select_keys
from vipocc.geometry.ndc import intrinsics_to_ndc
from vipocc.geometry.poses import relative
from vipocc.page import Page
from vipocc.priors.anchors import read_instances
from vipocc.stores import StoreReader
from vipocc.workspace import Workspace


@dataclass(frozen=True)
class Place:
    """A figure of the paper: what it shows, and what becomes of it here."""

    number: int
    about: str
    figures: Sequence[Drawn] = ()
    missing: str = ""
    """Why there is none, with the command that mends it."""


def newest(reports: Path, kind: str) -> Path | None:
    """Return the newest report of a kind that keeps pictured frames, by its name, which begins with the time."""
    found = [path.parent for path in reports.glob(f"*-{kind}-*/{FOLDER}") if not path.parent.name.startswith(".")]
    return max(found, default=None, key=lambda path: path.name)


def gallery(workspace: Workspace, config: Any, manifest: Manifest, named: Mapping[str, Path]) -> list[Place]:
    """Return what there is of Figures 1 and 3 to 10.

    Args:
        workspace: whose stores and reports.
        config: its configuration.
        manifest: of its dataset.
        named: folders of reports to compare, by name; by default the newest of occupancy and of depth are shown.

    Raises:
        DataError: what a report keeps is damaged.
    """
    folders = list(named.values())
    if not folders:
        folders = [one for one in (newest(workspace.reports, kind) for kind in ("occupancy", "depth")) if one]
    frames = _frames(folders)
    cubes, depths = [one for one in frames if one.volumes], [one for one in frames if one.depths]
    whole = [one for one in frames if one.volumes and one.depths] or cubes or depths
    sides = compared(named) if len(named) > 1 else []
    halves = {"occupancy": (cubes[::2], cubes[1::2]), "depth": (depths[::2], depths[1::2])}
    ask = {kind: f"run `vipocc eval {kind}`" for kind in halves}
    places = [
        Place(1, "single-view reconstruction", [drawing.scene(one) for one in whole[:2]], ask["occupancy"]),
        *_sampling(workspace, config, manifest),
        _grid(4, "occupancy, compared", drawing.compared_occupancy(halves["occupancy"][0]), ask["occupancy"]),
        _grid(5, "depth distributions", _distributions(folders), ask["depth"]),
        _grid(6, "depth, compared", drawing.compared_depth(halves["depth"][0]), ask["depth"]),
        _views(workspace, config, manifest),
        _grid(9, "occupancy, more frames", drawing.compared_occupancy(halves["occupancy"][1]), ask["occupancy"]),
        _grid(10, "depth, more frames", drawing.compared_depth(halves["depth"][1]), ask["depth"]),
    ]
    if sides:
        # Reports that were named stand side by side in the places of the paper's comparisons.
        by_title = {one.title: one for one in sides}
        for number, title in ((4, "Occupancy, compared"), (5, "Depth distributions"), (6, "Depth, compared")):
            at = next(k for k, one in enumerate(places) if one.number == number)
            if title in by_title:
                places[at] = Place(number, places[at].about, [by_title[title]])
    return sorted(places, key=lambda place: place.number)


def files(places: Sequence[Place], title: str) -> dict[str, str | bytes]:
    """Return the folder of the gallery: a PNG a figure and an index page that holds them all."""
    page, held = Page(title, "Figures of the paper, drawn from this workspace's own results"), {}
    for place in places:
        page.section(f"Figure {place.number}: {place.about}")
        if not place.figures:
            page.text(f"Not there: {place.missing}.", "warning")
        for number, one in enumerate(place.figures, 1):
            more = f"-{number}" if len(place.figures) > 1 else ""
            held[f"figure-{place.number:02d}{more}.png"] = one.png()
            figure = one.figure()
            assert isinstance(figure.picture, bytes)
            page.card(f"{slug(one.title)}-{place.number}-{number}", one.title, [(figure.picture, one.caption)])
    return {**held, "index.html": page.html()}


def _grid(number: int, about: str, figure: Drawn | None, missing: str) -> Place:
    return Place(number, about, [] if figure is None else [figure], missing)


def _frames(folders: Sequence[Path]) -> list[Pictured]:
    """Return all pictured frames, with what each report knows of them put together."""
    found: dict[Any, Pictured] = {}
    for folder in folders:
        for frame, one in read_pictured(folder).items():
            found[frame] = found[frame].joined(one) if frame in found else one
    return list(found.values())


def _distributions(folders: Sequence[Path]) -> Drawn | None:
    path = next((one / DISTRIBUTIONS for one in folders if (one / DISTRIBUTIONS).is_file()), None)
    if path is None:
        return None
    held = Distributions.read(path)
    return drawing.depth_distributions(held.counts, held.frames)


def _sampling(workspace: Workspace, config: Any, manifest: Manifest) -> list[Place]:
    """Figures 3 and 8, of the image with the most critical instances among some of the split that has priors."""
    about = {3: "the SNOG sampler", 8: "random patches beside SNOG's"}
    try:
        frames = StoreReader(workspace.store("frames"))
        instances = StoreReader(workspace.store("instances"))
    except MissingInputError:
        return [Place(number, text, missing="run `vipocc priors sam`") for number, text in about.items()]
    keys = [key for key in _keys(manifest) if all(committed(r, group_of(key), key.row) for r in (frames, instances))]
    if not keys:
        return [Place(number, text, missing="run `vipocc priors sam`") for number, text in about.items()]
    held = {key: read_instances(instances, group_of(key), key.row) for key in keys}
    key = max(keys, key=lambda one: int(held[one].critical.sum()))
    image = np.asarray(frames.read(group_of(key), key.row, "rgb"))
    snog, rng = config.priors.snog, np.random.default_rng([config.seed, key.row])
    frame = frame_of(manifest, key)
    name = drawing.named(frame)
    first = rays.sampler(image, held[key], snog, rng)
    second, _ = rays.samplers(image, held[key], snog, rng)
    told = (
        "Critical instances and their boxes; the mixture of Gaussians and a uniform part that anchors are drawn from; "
        f"one draw of {snog.anchors} patches of {snog.patch}x{snog.patch} that share no ray."
    )
    rates = (
        "One draw by each sampler. N_v: distinct rays; N_vc: those on critical instances; psi_v: their share. "
        "`vipocc eval sampler` gives the means over 1,000 draws."
    )
    return [
        Place(3, about[3], [drawn(name, told, first, frame)]),
        Place(8, about[8], [drawn(name, rates, second, frame)]),
    ]


def _views(workspace: Workspace, config: Any, manifest: Manifest) -> Place:
    """Figure 7, of the first sample whose views are all prepared."""
    about, missing = "the views of a sample", "run `vipocc data prepare --split train`"
    try:
        reader = StoreReader(workspace.store("frames"))
    except MissingInputError:
        return Place(7, about, missing=missing)
    data = config.data
    for key in _keys(manifest):
        try:
            sample = sample_views(manifest, key, data)
        except DataError:  # the drive ends before the last view
            continue
        if not all(committed(reader, f"{key.sequence}/{one.camera}", one.row) for one in sample):
            continue
        poses = {one.camera: prepared_poses(manifest, key.sequence, one.camera, data) for one in sample}
        shown = []
        for one in sample:
            step = one.row - key.row
            pixels = prepared_intrinsics(manifest, key.sequence, one.camera, data)
            shown.append(
                rig.DrawnView(
                    f"{one.camera}, t" + (f"+{step}" if step else ""),
                    np.asarray(reader.read(f"{key.sequence}/{one.camera}", one.row, "rgb")),
                    relative(poses[key.camera][key.row], poses[one.camera][one.row]),
                    np.asarray(intrinsics_to_ndc(pixels, data.image_size, data.convention), np.float64),
                )
            )
        frame = frame_of(manifest, key)
        told = (
            "Stereo images, and fisheye images resampled by a virtual camera that has the intrinsics of the left one; "
            "the fisheyes are taken later, when what they see is what the key image saw."
        )
        return Place(7, about, [drawn(drawing.named(frame), told, rig.views(shown), frame)])
    return Place(7, about, missing=missing)


def _keys(manifest: Manifest) -> list[FrameKey]:
    """Return up to sixteen key frames of each split, test first."""
    keys = []
    for split in ("test", "val", "train"):
        try:
            keys += select_keys(manifest, split, 16)
        except DataError:  # a split without key frames of the left camera
            continue
    return keys
