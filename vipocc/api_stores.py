"""The Python interface to what is on disk: `vipocc.open_store` and `vipocc.samples` (docs/python.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import UsageError

if TYPE_CHECKING:
    import xarray


def open_store(path: str | Path, group: str | None = None) -> xarray.Dataset:
    """Open a store of a workspace as an xarray dataset, nothing read before it is looked at.

    >>> import vipocc
    >>> depth = vipocc.open_store("depth.zarr")
    >>> depth["depth"].dims
    ('frame', 'y', 'x')
    >>> left = depth.isel(frame=depth["group"] == "drive/image_00")
    >>> bool(left["present"].all())
    True

    Args:
        path: the `.zarr` folder.
        group: `<sequence>/<camera>`; by default all of them, one after the other.

    Returns:
        The store's arrays along `frame`, with the coordinates `group`, `row`, `frame_id` and `present` along it:
        whether the ledger vouches for the row. Rows that are not present hold fill values. Of one group `frame_id` is
        an index.

    Raises:
        MissingInputError: there is no such store or group.
        UsageError: xarray is not installed.
    """
    from vipocc.stores import StoreReader
    from vipocc.stores.spec import ROW_DIMENSION

    try:
        import xarray
    except ImportError:
        raise UsageError("opening a store as xarray needs xarray", fix="run `pip install 'vipocc[xarray]'`") from None
    reader = StoreReader(path)
    groups = reader.groups() if group is None else [group]
    if not groups:
        raise UsageError("the store holds no rows yet", where=reader.path, fix="run the command that makes them")
    # A chunk of dask's for each shard of the store, so that no shard is read twice; one group needs no dask at all.
    chunks: Any = {} if len(groups) > 1 else None
    parts = []
    for name in groups:
        ids, present = reader.frame_ids(name), reader.rows(name)
        data = xarray.open_zarr(reader.path / name, chunks=chunks, consolidated=False, mask_and_scale=False)
        data = data.drop_vars("frame_id", errors="ignore").isel({ROW_DIMENSION: slice(len(ids))})
        along = {
            "group": (ROW_DIMENSION, np.full(len(ids), name)),
            "row": (ROW_DIMENSION, np.arange(len(ids))),
            "frame_id": (ROW_DIMENSION, np.asarray(ids)),
            "present": (ROW_DIMENSION, present),
        }
        parts.append(data.assign_coords(along))
    found: xarray.Dataset = (
        parts[0] if len(parts) == 1 else xarray.concat(parts, ROW_DIMENSION, combine_attrs="drop_conflicts")
    )
    found.attrs |= {name: value for name, value in reader.attrs.items() if isinstance(value, str | int | float)}
    if len(parts) == 1:
        # Frame ids tell rows of one sequence apart; of several they do not.
        found = found.set_xindex("frame_id")
    return found


@dataclass(frozen=True)
class Sample:
    """One sample of a split, as it is stored."""

    sequence: str
    camera: str
    """Of the key image."""
    row: int
    """Of the key image in its sequence."""
    frame_id: int
    images: NDArray[np.uint8]
    """[V, H, W, 3], the key image first; of val and test it alone."""
    intrinsics: NDArray[np.float32]
    """[V, 3, 3] in pixels of `images`."""
    key_from_view: NDArray[np.float32]
    """[V, 4, 4] metres."""
    views: tuple[tuple[str, int], ...]
    """Camera and row of each view."""
    prior_depth: NDArray[np.float32] | None
    """[H, W] metres of the key image, None where there is no pseudo-depth."""
    anchors: NDArray[np.uint16] | None
    """[draws, 64, 2] (x, y) of patch centres of the key image, None where there are none."""


def samples(workspace: str | Path, split: str = "train", *, overrides: Sequence[str] = ()) -> Iterator[Sample]:
    """Walk through the samples of a split whose images are prepared, in the manifest's order.

    >>> import vipocc
    >>> sample = next(vipocc.samples("workspace", "train"))
    >>> sample.images.shape[0] == len(sample.views)
    True

    Args:
        workspace: its folder.
        split: train, val or test. Training samples have all their views, the others the key image.
        overrides: `section.key=value` strings over the workspace's configuration; `data.fisheye=false` leaves out the
            fisheyes, which priors do not prepare.

    Raises:
        WorkspaceError: there is no workspace.
        MissingInputError: the dataset is not indexed, or images of the split are not prepared.
        DataError: the manifest has no such split.
    """
    from vipocc import config as configuration
    from vipocc.data_manifests.manifest import Manifest
    from vipocc.data_manifests.views import prepared_intrinsics, prepared_poses, view_offsets
    from vipocc.geometry.poses import relative
    from vipocc.stores import StoreReader
    from vipocc.workspace import Workspace

    home = Workspace.open(Path(workspace))
    data = configuration.load(home.preset, overrides=(*home.overrides, *overrides)).data
    manifest = Manifest.load(home.manifest, dataset=home.dataset, root=home.root)
    frames = StoreReader(home.store("frames"), fix=f"run `vipocc data prepare --split {split}`")
    # The store knows at what size its images were prepared, whatever the configuration says by now.
    height, width = (int(side) for side in frames.attrs["image_size"])
    data = data.model_copy(update={"image_size": (height, width)})
    held = {kind: StoreReader(home.store(kind)) for kind in ("depth", "anchors") if home.store(kind).is_dir()}

    def prior(kind: str, group: str, row: int) -> NDArray[Any] | None:
        reader = held.get(kind)
        if reader is None or not reader.has(group) or not bool(reader.rows(group)[row : row + 1].any()):
            return None
        return reader.read(group, row, kind)

    for (sequence, camera), rows in manifest.key_rows(split).items():
        offsets = view_offsets(manifest.dataset, camera, data) if split == "train" else [(camera, 0)]
        names = dict.fromkeys(name for name, _ in offsets)
        intrinsics = {name: prepared_intrinsics(manifest, sequence, name, data) for name in names}
        poses = {name: prepared_poses(manifest, sequence, name, data) for name in names}
        ids = manifest.frame_ids(sequence)
        for row in (int(one) for one in rows):
            views = tuple((name, row + step) for name, step in offsets)
            depth = prior("depth", f"{sequence}/{camera}", row)
            yield Sample(
                sequence, camera, row, int(ids[row]),
                np.stack([frames.read(f"{sequence}/{name}", at, "rgb") for name, at in views]),
                np.stack([intrinsics[name] for name, _ in views]).astype(np.float32),
                np.stack([relative(poses[camera][row], poses[name][at]) for name, at in views]).astype(np.float32),
                views,
                None if depth is None else np.asarray(depth, np.float32),
                prior("anchors", f"{sequence}/{camera}", row),
            )  # fmt: skip
