"""What a report keeps of the frames that it pictures, so that figures of several reports need no network again."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.errors import DataError
from vipocc.evaluation.report import Frame

FOLDER = "pictured"
DISTRIBUTIONS = f"{FOLDER}/distributions.npz"
"""Histograms of depth over all frames of a report, not only those pictured."""
Mask = NDArray[np.bool_]


@dataclass
class Pictured:
    """One frame: what went in, what each method said of it, and the truth, as far as the evaluation knew them."""

    frame: Frame
    image: NDArray[np.uint8]
    """[H, W, 3]."""
    depths: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Metres [h, w] by method."""
    true_depth: NDArray[Any] | None = None
    """Metres [h, w], 0 or NaN where unknown."""
    slices: dict[str, Mask] = field(default_factory=dict)
    """Predicted occupancy on the slice [rows, columns] by method, row 0 farthest."""
    occupied: Mask | None = None
    visible: Mask | None = None
    volumes: dict[str, Mask] = field(default_factory=dict)
    """Predicted occupancy in `VOLUME` [ny, nz, nx] by method."""

    @property
    def file(self) -> str:
        """Its path in the report's folder."""
        one = self.frame
        return f"{FOLDER}/{one.sequence.replace('/', '-')}-{one.camera}-{one.frame_id:010d}.npz"

    def content(self) -> bytes:
        """Return it as an .npz file; depth is rounded to float16, a relative error of 5e-4."""
        arrays: dict[str, NDArray[Any]] = {"image": self.image}
        for group, held in (("depth", self.depths), ("slice", self.slices), ("volume", self.volumes)):
            arrays |= {f"{group}/{name}": _small(values) for name, values in held.items()}
        for name, one in (("true_depth", self.true_depth), ("occupied", self.occupied), ("visible", self.visible)):
            if one is not None:
                arrays[name] = _small(one)
        arrays["frame"] = np.frombuffer(json.dumps(asdict(self.frame)).encode(), np.uint8)
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **arrays)
        return file.getvalue()

    @classmethod
    def read(cls, path: Path) -> Pictured:
        """Return what a file holds.

        Raises:
            DataError: it is damaged.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as held:
                arrays = {name: held[name] for name in held.files}
            made = cls(Frame(**json.loads(arrays["frame"].tobytes())), arrays["image"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            raise DataError("the pictured frame is damaged", where=path, fix="evaluate again") from None
        groups: dict[str, dict[str, NDArray[Any]]] = {
            "depth": made.depths, "slice": made.slices, "volume": made.volumes,
        }  # fmt: skip
        for name, values in arrays.items():
            group, slash, method = name.partition("/")
            if slash and group in groups:
                groups[group][method] = values
        made.true_depth, made.occupied, made.visible = (arrays.get(n) for n in ("true_depth", "occupied", "visible"))
        return made

    def joined(self, other: Pictured) -> Pictured:
        """Return this frame with what another report knows of it and this one does not."""
        return Pictured(
            self.frame,
            self.image,
            {**other.depths, **self.depths},
            other.true_depth if self.true_depth is None else self.true_depth,
            {**other.slices, **self.slices},
            other.occupied if self.occupied is None else self.occupied,
            other.visible if self.visible is None else self.visible,
            {**other.volumes, **self.volumes},
        )


def read_pictured(report: Path) -> dict[Frame, Pictured]:
    """Return the pictured frames of a report's folder, in order; none if it keeps none."""
    found = [Pictured.read(path) for path in sorted((report / FOLDER).glob("*-*.npz"))]
    return {one.frame: one for one in found}


def _small(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.float16) if values.dtype.kind == "f" else values
