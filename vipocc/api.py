"""The Python interface: load a model and ask it, open a store, walk through samples.

The names are `vipocc.load`, `vipocc.open_store` and `vipocc.samples`; arrays are NumPy's. docs/python.md shows them at
work.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from vipocc.apps.predict.cameras import Intrinsics, Known, fitted
from vipocc.apps.predict.checkpoints import TrainingCamera, open_checkpoint, training_camera
from vipocc.apps.predict.framing import undistorted
from vipocc.apps.predict.pictures import read_picture
from vipocc.apps.predict.predictor import Predictor, View
from vipocc.errors import UsageError
from vipocc.geometry.cameras import Pinhole

if TYPE_CHECKING:
    import xarray

    from vipocc.model.network import ViPOcc

Picture: TypeAlias = str | Path | Image.Image | NDArray[np.uint8]
"""A file, an image of Pillow's, or uint8 [h, w, 3], RGB."""
Camera: TypeAlias = ArrayLike | float | Pinhole | Intrinsics | None
"""[3, 3] in pixels of the picture, a focal length in them, a camera, what is known of one, or None: EXIF's."""
OCCUPIED = 0.5
"""Density in 1/m above which a point is occupied (paper, supplement)."""

__all__ = ["Camera", "Model", "Picture", "Sample", "Scene", "load", "open_store", "samples"]


class Scene:
    """One picture as a model sees it; the networks run once, points are looked up as often as wanted."""

    def __init__(self, predictor: Predictor, view: View, camera: Known) -> None:
        self._predictor, self._view = predictor, view
        self.camera: Pinhole = camera.camera
        """Of the picture, in its pixels."""
        self.camera_origin: str = camera.origin
        """How it is known."""

    @property
    def view(self) -> NDArray[np.uint8]:
        """[H, W, 3], the picture as the training camera would have taken it, which the networks get."""
        return self._view.image

    @property
    def view_camera(self) -> Pinhole:
        """The training camera: that of `view` and of `depth`."""
        return self._view.framing.training

    @property
    def seen(self) -> NDArray[np.bool_]:
        """[H, W]: which pixels of `view` the picture shows; the others are padding."""
        return self._view.framing.seen

    def density(self, points: ArrayLike) -> NDArray[np.float32]:
        """Return the density in 1/m at points [..., 3] in the camera's frame: metres, x right, y down, z forward.

        Raises:
            UsageError: they are no points.
        """
        given = np.asarray(points, np.float32)
        if given.ndim == 0 or given.shape[-1] != 3:
            raise UsageError(f"points must be [..., 3] in metres, not of shape {list(given.shape)}")
        found = self._predictor.density_of(self._features, given.reshape(-1, 3))
        return found.reshape(given.shape[:-1])

    def occupancy(self, points: ArrayLike, threshold: float = OCCUPIED) -> NDArray[np.bool_]:
        """Return whether points [..., 3] are occupied: whether their density is above `threshold`, 1/m."""
        return np.asarray(self.density(points) > threshold)

    @cached_property
    def depth(self) -> NDArray[np.float32]:
        """[H, W] metres along the optical axis at the pixels of `view`; NaN where the picture shows nothing.

        Refined by the depth branch if the model has one and what that needs, else rendered from the density.
        """
        found = self._predictor.predict([self._view])[0].depth
        assert found is not None
        return found

    @property
    def depth_of_picture(self) -> NDArray[np.float32]:
        """`depth` at the pixels of the picture itself [h, w], NaN where the view does not show them."""
        return self._view.framing.to_picture(self.depth)

    @cached_property
    def _features(self) -> Any:
        return self._predictor.features([self._view])


class Model:
    """A trained network and the camera that it knows; made by `load`."""

    def __init__(self, predictor: Predictor, config: Any) -> None:
        self._predictor = predictor
        self.config: Any = config
        """The whole configuration of the checkpoint."""

    @property
    def network(self) -> ViPOcc:
        """The torch module."""
        return self._predictor.model

    @property
    def training_camera(self) -> Pinhole:
        """The camera that pictures are brought to."""
        return self._predictor.training.camera

    @property
    def depth_kind(self) -> Literal["refined", "predicted", "rendered"]:
        """How depth comes about: from a depth model refined, by the branch alone, or rendered from the density."""
        return self._predictor.depth_kind

    def look(self, image: Picture, intrinsics: Camera = None) -> Scene:
        """Return what the model sees in a picture.

        Args:
            image: a file, an image of Pillow's, or uint8 [h, w, 3].
            intrinsics: of that picture, see `Camera`; a guess is told by a warning.

        Raises:
            DataError: the picture cannot be read, or its camera has next to nothing in common with the training's.
            UsageError: this is no picture, or these are no intrinsics.
        """
        path, exif = None, None
        if isinstance(image, str | Path):
            path = Path(image)
            picture = read_picture(path)
            pixels, exif = picture.image, picture.exif
        elif isinstance(image, Image.Image):
            pixels, exif = np.asarray(image.convert("RGB"), np.uint8), image.getexif()
        else:
            pixels = np.asarray(image)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise UsageError(f"a picture must be uint8 [h, w, 3], not {pixels.dtype} {list(pixels.shape)}")
        size = (int(pixels.shape[0]), int(pixels.shape[1]))
        if intrinsics is None:
            known = Intrinsics(default=self._predictor.training.dataset).of_picture(size, path, exif)
        elif isinstance(intrinsics, Intrinsics):
            known = intrinsics.of_picture(size, path, exif)
        else:
            known = _known(intrinsics, size, path)
        if known.warning:
            warnings.warn(f"{path or 'the picture'}: {known.warning}", stacklevel=2)
        pixels = undistorted(np.ascontiguousarray(pixels), known.camera, known.distortion)
        return Scene(self._predictor, self._predictor.view(pixels, known.camera), known)

    def density(self, points: ArrayLike, image: Picture, intrinsics: Camera = None) -> NDArray[np.float32]:
        """Return the density in 1/m at points [..., 3] in the camera's frame; see `Scene.density` and `look`."""
        return self.look(image, intrinsics).density(points)

    def occupancy(
        self, points: ArrayLike, image: Picture, intrinsics: Camera = None, threshold: float = OCCUPIED
    ) -> NDArray[np.bool_]:
        """Return whether points [..., 3] in the camera's frame are occupied; see `Scene.occupancy` and `look`."""
        return self.look(image, intrinsics).occupancy(points, threshold)

    def depth(self, image: Picture, intrinsics: Camera = None, *, of_picture: bool = False) -> NDArray[np.float32]:
        """Return metres along the optical axis [H, W] in the training camera's view; see `Scene.depth` and `look`.

        With `of_picture`, at the pixels of the picture itself.
        """
        scene = self.look(image, intrinsics)
        return scene.depth_of_picture if of_picture else scene.depth


def load(
    path_or_hub: str | Path,
    *,
    device: str = "cpu",
    depth_model: str | None = None,
    overrides: Sequence[str] = (),
    revision: str | None = None,
    training_camera: str | None = None,
) -> Model:
    """Load a checkpoint to ask it about pictures.

    >>> import vipocc
    >>> model = vipocc.load("checkpoint")
    >>> scene = model.look("street.png", 450.0)
    >>> scene.occupancy([[0.0, 1.0, 8.0], [0.0, -1.0, 8.0]]).shape
    (2,)
    >>> scene.depth.shape == model.training_camera.size
    True

    Args:
        path_or_hub: a checkpoint's folder, a run's (its best checkpoint), or the id of a hub repository.
        device: cpu, cuda, cuda:N, or auto.
        depth_model: what makes pseudo-depth for the depth branch: a metric Depth Anything V2 (hub id, folder, .pth) or
            a registered source of depth. Without, depth is rendered unless the branch needs none.
        overrides: `section.key=value` strings over the checkpoint's own configuration.
        revision: branch, tag or commit of a hub repository.
        training_camera: whose camera the checkpoint was trained with (kitti-360, kitti-raw, synthetic, or a calibration
            file) [default: that of the workspace that it lies in, else what its preset suggests].

    Raises:
        CheckpointError: there is none, or it is damaged.
        DeviceError: the device is not there.
    """
    from vipocc.apps.predict.prior import LivePrior
    from vipocc.evaluation.inputs import choose_device, load_model

    found, workspace = open_checkpoint(path_or_hub, overrides, revision=revision)
    where = choose_device(device)
    trained: TrainingCamera = _training(found.config, workspace, training_camera)
    prior = None if depth_model is None else LivePrior(depth_model, found.config, str(where), found.path)
    model = load_model(found, where)
    return Model(Predictor(model, trained, resize=found.config.data.resize, prior=prior), found.config)


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


def _training(config: Any, workspace: Any, named: str | None) -> TrainingCamera:
    return training_camera(config, workspace, named)


def _known(intrinsics: Any, size: tuple[int, int], path: Path | None) -> Known:
    """Return the camera that a caller gave."""
    if isinstance(intrinsics, Pinhole):
        return Known(fitted(intrinsics.matrix, intrinsics.size, size, path, Path("the camera")), "as given")
    values = np.asarray(intrinsics, np.float64)
    if values.ndim == 0:
        return Intrinsics(focal=float(values)).of_picture(size, path)
    if values.shape != (3, 3):
        raise UsageError(
            f"intrinsics must be [3, 3] or a focal length, in pixels of the picture, not of shape {list(values.shape)}"
        )
    given = Pinhole.from_matrix(values, size)
    return Intrinsics(fx=given.fx, fy=given.fy, cx=given.cx, cy=given.cy).of_picture(size, path)
