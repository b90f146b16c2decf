"""The Python interface to a trained model: `vipocc.load` (docs/python.md). Arrays are NumPy's."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
    from vipocc.model.network import ViPOcc

Picture: TypeAlias = str | Path | Image.Image | NDArray[np.uint8]
"""A file, an image of Pillow's, or uint8 [h, w, 3], RGB."""
Camera: TypeAlias = ArrayLike | float | Pinhole | Intrinsics | None
"""[3, 3] in pixels of the picture, a focal length in them, a camera, what is known of one, or None: EXIF's."""
OCCUPIED = 0.5
"""Density in 1/m above which a point is occupied (paper, supplement)."""

__all__ = ["Camera", "Model", "Picture", "Scene", "load"]


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
