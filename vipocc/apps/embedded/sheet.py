"""A sheet of pictures: what the trained models make of held-out drives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vipocc.apps.embedded.pictures import Pictures
from vipocc.pictures import contact_sheet, depth_picture, write_png
from vipocc.priors.config import DepthConfig, SamConfig
from vipocc.priors.depth.depth_anything import DepthAnything
from vipocc.priors.grounded_sam.detector import GroundingDino
from vipocc.priors.grounded_sam.records import pack
from vipocc.priors.grounded_sam.segmenter import Sam
from vipocc.priors.report.sheets import masks_picture


def write_sheet(folder: Path, pictures: Pictures, path: Path, count: int = 6, device: str = "cpu") -> None:
    """Write image, true and predicted depth, and predicted instances of some pictures.

    Args:
        folder: holds the folders of all three models.
        pictures: held-out ones.
        path: of the PNG.
        count: of pictures.
        device: that the models run on.
    """
    chosen = np.linspace(0, len(pictures.image) - 1, min(count, len(pictures.image))).astype(int)
    images = pictures.image[chosen]
    depths = DepthAnything(DepthConfig(model=str(folder / "depth"), batch_size=1), device)(images)
    config = SamConfig(detector=str(folder / "detector"), segmenter=str(folder / "segmenter"), batch_size=1)
    detections = GroundingDino(config, device)(images)
    masks = Sam(config, device)(images, detections)
    packed = pack(detections, masks, images.shape[1], images.shape[2])
    names = [entry.label for entry in config.classes]
    rows = []
    for k, index in enumerate(chosen):
        found = detections[k]
        order = packed["label"][k][: int(packed["count"][k])]
        cars = sum(names[int(label)] == "car" for label in found.labels)
        rows.append(
            [
                ("picture of a held-out drive", images[k]),
                ("true depth", depth_picture(pictures.depth[index].astype(np.float32))),
                ("depth by embedded:depth", depth_picture(np.asarray(depths[k], np.float32))),
                (f"{len(found)} instances, {cars} cars", masks_picture(images[k], packed["masks"][k], order)),
            ]
        )
    write_png(path, contact_sheet(rows, width=480))
