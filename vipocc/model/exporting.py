"""A checkpoint as programs that run without vipocc: torch.export's .pt2, or ONNX.

Three programs, float32, for one image at a time of the size that the checkpoint was trained at:

- `encoder`: image [1, 3, H, W] in [0, 1] -> features [1, C, H, W], once for an image;
- `query`: features, intrinsics [1, 3, 3] (normalised) and points [1, N, 3] (camera frame, metres) -> density [1, N] in
  1/m, any N;
- `depth`, where there is a depth branch: image and, if the branch refines one, prior [1, 1, H, W] in metres -> depth.
"""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vipocc.errors import UsageError
from vipocc.model.field import PointQuery
from vipocc.model.heads.interface import DensityHead
from vipocc.model.network import ViPOcc

Format = Literal["torch", "onnx"]
_SUFFIX: dict[str, str] = {"torch": ".pt2", "onnx": ".onnx"}
_LEAST_POINTS, _EXAMPLE_POINTS = 2, 64
DESCRIPTION = "export.json"


class Encoder(nn.Module):
    """Image to the features that points are looked up in."""

    def __init__(self, model: ViPOcc) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = model.encoder, model.decoder, model.head

    def forward(self, image: Tensor) -> Tensor:
        """[1, 3, H, W] in [0, 1] -> [1, C, H, W], what the density head made of the features once."""
        height, width = image.shape[-2:]
        features: Tensor = self.decoder(self.encoder(image))[..., :height, :width]
        prepared: Tensor = self.head.prepare(features)
        return prepared


class Query(nn.Module):
    """Features and points to densities."""

    def __init__(self, model: ViPOcc) -> None:
        super().__init__()
        self.head = model.head

    def forward(self, features: Tensor, intrinsics_ndc: Tensor, points: Tensor) -> Tensor:
        """[1, C, H, W], [1, 3, 3] and [1, N, 3] -> [1, N] in 1/m."""
        found: Tensor = self.head(features, PointQuery.of_points(points, intrinsics_ndc))
        return found[..., 0]


class Depth(nn.Module):
    """Image and pseudo-depth to refined depth."""

    def __init__(self, model: ViPOcc) -> None:
        super().__init__()
        assert model.depth_branch is not None
        self.branch = model.depth_branch

    def forward(self, image: Tensor, prior: Tensor) -> Tensor:
        """[1, 3, H, W] in [0, 1] and [1, 1, H, W] in metres -> [1, 1, H, W] in metres."""
        return self.branch.refine(prior, self._residual(image))

    def _residual(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        residual: Tensor = self.branch(image)[..., :height, :width]
        return residual


class DepthAlone(Depth):
    """Image to the depth of a branch that needs no prior."""

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """[1, 3, H, W] in [0, 1] -> [1, 1, H, W] in metres."""
        return self.branch.refine(None, self._residual(image))


@dataclass(frozen=True)
class Program:
    """One of the exported programs."""

    module: nn.Module
    arguments: tuple[Tensor, ...]
    names: tuple[str, ...]
    result: str
    dynamic: Mapping[str, Any]


def programs(model: ViPOcc, size: tuple[int, int]) -> dict[str, Program]:
    """Return the programs of a model for images of `size` (height, width), by name, with example arguments.

    Raises:
        UsageError: its density head needs more than the key image, or must know all points of a call beforehand.
    """
    head = model.head
    if head.needs.maps or head.needs.images or head.needs.fewest_views > 1 or head.needs.views > 1:
        raise UsageError(
            f"the density head {model.config.head.kind} needs more than the features of one image",
            fix="export a checkpoint with the head mlp",
        )
    if type(head).gather is not DensityHead.gather:
        raise UsageError(f"the density head {model.config.head.kind} must know all points of a call beforehand")
    model = model.float().cpu().eval()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, *size, generator=generator)
    intrinsics = torch.tensor([[[0.785, 0.0, -0.03], [0.0, 2.94, 0.27], [0.0, 0.0, 1.0]]])
    points = torch.rand(1, _EXAMPLE_POINTS, 3, generator=generator) * torch.tensor([8.0, 1.0, 16.0])
    points = points + torch.tensor([-4.0, 0.0, 4.0])
    encoder = Encoder(model)
    with torch.no_grad():
        features = encoder(image)
    if not isinstance(features, Tensor):
        raise UsageError(f"the density head {model.config.head.kind} looks points up in more than one tensor")
    any_number = torch.export.Dim("points", min=_LEAST_POINTS)
    found = {
        "encoder": Program(encoder, (image,), ("image",), "features", {"image": None}),
        "query": Program(
            Query(model),
            (features, intrinsics, points),
            ("features", "intrinsics_ndc", "points"),
            "density",
            {"features": None, "intrinsics_ndc": None, "points": {1: any_number}},
        ),
    }
    branch = model.depth_branch
    if branch is not None and branch.needs_prior:
        prior = 5.0 + 40.0 * torch.rand(1, 1, *size, generator=generator)
        nothing = {"image": None, "prior": None}
        found["depth"] = Program(Depth(model), (image, prior), ("image", "prior"), "depth", nothing)
    elif branch is not None:
        found["depth"] = Program(DepthAlone(model), (image,), ("image",), "depth", {"image": None})
    return found


def export(model: ViPOcc, folder: Path, size: tuple[int, int], form: Format = "torch") -> dict[str, Path]:
    """Write the programs of a model into `folder`, and `export.json`, which says what goes in and out.

    Args:
        model: in evaluation mode.
        folder: made if need be.
        size: (height, width) of images.
        form: `torch` or `onnx`.

    Returns:
        Their files by name.

    Raises:
        UsageError: the model cannot be exported, or ONNX's packages are not installed.
    """
    if form == "onnx":
        missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(f"exporting to ONNX needs {' and '.join(missing)}", fix="run `pip install 'vipocc[onnx]'`")
    parts = programs(model, size)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, program in parts.items():
        files[name] = folder / f"{name}{_SUFFIX[form]}"
        aside = files[name].with_name(f".partial-{files[name].name}")
        with torch.no_grad():
            exported = torch.export.export(program.module, program.arguments, dynamic_shapes=dict(program.dynamic))
        if form == "torch":
            torch.export.save(exported, aside)
        else:
            _write_onnx(exported, program, aside)
        os.replace(aside, files[name])
    about = {
        name: {
            "file": files[name].name,
            "inputs": {
                given: ["N" if given == "points" and axis == 1 else length for axis, length in enumerate(tensor.shape)]
                for given, tensor in zip(program.names, program.arguments, strict=True)
            },
            "output": program.result,
        }
        for name, program in parts.items()
    }
    described = {
        "format": form, "image_size": list(size), "pixel_convention": model.convention, "programs": about,
        "images": "RGB in [0, 1], brought to the training camera",
        "points": "camera frame, x right, y down, z forward, metres",
        "intrinsics_ndc": "of the image, normalised to [-1, 1]; see vipocc.geometry.ndc.intrinsics_to_ndc",
        "density": "1/m; occupied above 0.5", "least_points": _LEAST_POINTS,
    }  # fmt: skip
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return files


def _write_onnx(exported: torch.export.ExportedProgram, program: Program, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of the packages that it is made of
        converted = torch.onnx.export(
            exported,
            dynamo=True,
            input_names=list(program.names),
            output_names=[program.result],
            verbose=False,
            optimize=True,
        )
        assert converted is not None
        converted.save(path, external_data=False)
