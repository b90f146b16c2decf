"""The camera of a picture that belongs to no dataset: what is known of it, and where that comes from.

In this order: options, a calibration file, what the picture itself says (EXIF), the size of a known dataset's images,
and at last KITTI-360's angle of view, which is a guess and is said to be one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from vipocc.apps.predict.calibration import read_calibration
from vipocc.errors import DataError, UsageError
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.shapes import Size

KNOWN: dict[str, Pinhole] = {
    "kitti-360": Pinhole(552.554261, 552.554261, 682.049453, 238.769549, 1408, 376),
    "kitti-raw": Pinhole(721.5377, 721.5377, 609.5593, 172.854, 1242, 375),
    "synthetic": Pinhole(552.5, 552.5, 682.0, 238.8, 1408, 376),
}
"""Left rectified cameras of the datasets, as their calibration files print them; KITTI Raw's of 2011_09_26."""
_KITTI_SIZES = {(375, 1242), (370, 1226), (376, 1241), (374, 1238), (370, 1224)}
"""(height, width) of KITTI Raw's five recording days; their cameras differ by under two per cent."""
_FULL_FRAME_DIAGONAL = math.hypot(36.0, 24.0)
_ASPECT_TOLERANCE = 0.01
"""A picture of the same camera at another size keeps its proportions to within this share: sizes are whole pixels."""
_SAME_ASPECT = 0.004
"""The same for telling KITTI-360 by it: 704x188 and 640x171 are, 1242x375 is not."""
_VIEW_ANGLES = 5.0, 150.0
"""Degrees across; a pinhole camera outside of them is a mistake in what was said of it."""


@dataclass(frozen=True)
class Known:
    """A camera and how it is known."""

    camera: Pinhole
    origin: str
    """In words, for the file beside a prediction."""
    warning: str = ""
    """What may be wrong with it; empty where the user or the picture said so."""
    distortion: tuple[float, ...] = ()
    """Lens distortion in OpenCV's order (k1, k2, p1, p2, k3, ...), to be taken out of the picture first."""


@dataclass(frozen=True)
class Intrinsics:
    """What the user said of the camera; all in pixels of the picture, (0, 0) the centre of the top-left one."""

    focal: float | None = None
    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    fov: float | None = None
    """Horizontal angle of view in degrees."""
    file: Path | None = None
    """A calibration file."""
    camera: str | None = None
    """Which camera of that file."""
    default: str = field(default="kitti-360")
    """Whose angle of view is taken where nothing at all is known."""

    def __post_init__(self) -> None:
        said = [name for name in ("focal", "fx", "fov") if getattr(self, name) is not None]
        if self.file is not None:
            said.append("calibration")
        if len(said) > 1:
            raise UsageError(f"--{said[0]} and --{said[1]} both tell the focal length", fix="give one of them")
        if not said and any(getattr(self, name) is not None for name in ("fy", "cx", "cy")):
            raise UsageError("--fy, --cx and --cy need a focal length", fix="add --fx (or --focal, or --fov)")
        if self.file is not None and any(getattr(self, name) is not None for name in ("fy", "cx", "cy")):
            raise UsageError("--fy, --cx and --cy contradict --calibration", fix="leave them out, or give --fx too")
        if self.camera is not None and self.file is None:
            raise UsageError("--camera chooses within a calibration file", fix="add --calibration FILE")
        for name in ("focal", "fx", "fy"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"--{name} must be a positive number of pixels, not {value}")
        if self.fov is not None and not _VIEW_ANGLES[0] <= self.fov <= _VIEW_ANGLES[1]:
            raise UsageError(
                f"--fov {self.fov:g} is no angle of view of a pinhole camera",
                fix=f"give the horizontal one in degrees, {_VIEW_ANGLES[0]:g} to {_VIEW_ANGLES[1]:g}",
            )

    def of_picture(self, size: Size, path: Path | None = None, exif: Image.Exif | None = None) -> Known:
        """Return the camera of a picture of `size` (height, width), upright as people see it.

        Args:
            size: of the picture.
            path: where it is, for messages.
            exif: what the picture says of itself.

        Raises:
            DataError: what is known cannot be this picture's camera.
        """
        known = self._said(size, path) or _from_exif(size, exif) or _from_size(size) or self._guess(size)
        across = math.degrees(2.0 * math.atan(known.camera.width / (2.0 * known.camera.fx)))
        if not _VIEW_ANGLES[0] <= across <= _VIEW_ANGLES[1]:
            raise DataError(
                f"a picture {size[1]} pixels wide with a focal length of {known.camera.fx:.5g} pixels ({known.origin}) "
                f"would see {across:.3g} degrees",
                where=path,
                fix="correct the intrinsics: they are in pixels of the picture as it is given",
            )
        if not (-1.0 <= known.camera.cx / size[1] <= 2.0 and -1.0 <= known.camera.cy / size[0] <= 2.0):
            raise DataError(
                f"the principal point ({known.camera.cx:.5g}, {known.camera.cy:.5g}) lies far outside a picture of "
                f"{size[1]}x{size[0]}",
                where=path,
                fix="correct --cx and --cy: they are in pixels of the picture as it is given",
            )
        return known

    def _said(self, size: Size, path: Path | None) -> Known | None:
        height, width = size
        if self.file is not None:
            found = read_calibration(self.file, self.camera)
            return Known(
                fitted(found.matrix, found.size, size, path, self.file),
                f"camera {found.camera} of {self.file.name}",
                distortion=found.distortion,
            )
        fx = self.focal or self.fx
        origin = f"--{'focal' if self.focal else 'fx'} {fx:g}" if fx else ""
        if self.fov is not None:
            fx, origin = width / (2.0 * math.tan(math.radians(self.fov) / 2.0)), f"--fov {self.fov:g}"
        if fx is None:
            return None
        cx = (width - 1) / 2.0 if self.cx is None else self.cx
        cy = (height - 1) / 2.0 if self.cy is None else self.cy
        return Known(Pinhole(fx, self.fy or fx, cx, cy, width, height), origin)

    def _guess(self, size: Size) -> Known:
        height, width = size
        like = KNOWN[self.default]
        focal = like.fx / like.width * width
        angle = math.degrees(2.0 * math.atan(like.width / (2.0 * like.fx)))
        return Known(
            Pinhole(focal, focal, (width - 1) / 2.0, (height - 1) / 2.0, width, height),
            f"guessed: the {angle:.0f} degrees that {self.default} sees",
            f"nothing says what camera took it: {self.default}'s angle of view, {angle:.0f} degrees across, is taken, "
            "and depth and places are wrong by as much as that is; give --focal, --fov or --calibration",
        )


def fitted(matrix: np.ndarray, stated: Size | None, size: Size, path: Path | None, file: Path) -> Pinhole:
    """Return the camera of a calibration for a picture of `size`, resized with it where its proportions are the same.

    Raises:
        DataError: the calibration is of a picture of other proportions, a crop for instance.
    """
    if stated is None or stated == size:
        return Pinhole.from_matrix(matrix, size)
    if abs((stated[1] / stated[0]) / (size[1] / size[0]) - 1.0) > _ASPECT_TOLERANCE:
        raise DataError(
            f"the picture is {size[1]}x{size[0]}, and {file.name} is of {stated[1]}x{stated[0]}, of other proportions",
            where=path,
            fix="give the calibration of this picture: a cropped one has another principal point",
        )
    return Pinhole.from_matrix(matrix, stated).resized(size)


def _from_size(size: Size) -> Known | None:
    """Return a KITTI camera for pictures of its size, or of KITTI-360's unusual proportions at any size."""
    like, height, width = KNOWN["kitti-360"], *size
    if size in _KITTI_SIZES:
        name = "kitti-raw"
    elif size == like.size or abs(width / height / (like.width / like.height) - 1.0) < _SAME_ASPECT:
        name = "kitti-360"
    else:
        return None
    return Known(
        KNOWN[name].resized(size),
        f"guessed: {name}'s camera, by the picture's size",
        f"taken for a picture of {name}'s camera, by its size alone; give --calibration or --focal if it is another's",
    )


def _from_exif(size: Size, exif: Image.Exif | None) -> Known | None:
    """Return the camera that EXIF tells: the 35 mm equivalent, else the focal length over the sensor's pixels."""
    if exif is None:
        return None
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    height, width = size
    taken = [_number(tags.get(tag)) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)]
    if all(taken):
        # Turned pictures keep the sensor's own width and height, so proportions are compared the long side first.
        long, short = max(taken), min(taken)
        if abs(long / short / (max(size) / min(size)) - 1.0) > _ASPECT_TOLERANCE:
            return None  # a crop, of which the file no longer tells the angle of view
    else:
        long = max(size)
    equivalent = _number(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if equivalent:
        # CIPA DCG-001 defines the equivalent by the diagonal of the picture.
        focal, origin = (
            equivalent / _FULL_FRAME_DIAGONAL * math.hypot(height, width),
            f"EXIF, {equivalent:g} mm (35 mm)",
        )
    else:
        millimetres = _number(tags.get(ExifTags.Base.FocalLength))
        density = _number(tags.get(ExifTags.Base.FocalPlaneXResolution))
        unit = {2: 25.4, 3: 10.0, 4: 1.0}.get(int(_number(tags.get(ExifTags.Base.FocalPlaneResolutionUnit)) or 2))
        if not (millimetres and density and unit):
            return None
        focal = millimetres * density / unit * (max(size) / long)
        origin = f"EXIF, {millimetres:g} mm at {density / unit:.4g} pixels/mm"
    return Known(Pinhole(focal, focal, (width - 1) / 2.0, (height - 1) / 2.0, width, height), origin)


def _number(value: object) -> float:
    """Return a tag's value, 0 where it is absent or none: writers put 0 and 0/0 where they do not know."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0
