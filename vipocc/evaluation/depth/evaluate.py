"""Metric depth of the key image against LiDAR or the exact truth (published_system.md 7.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc.data_manifests.manifest import FrameKey
from vipocc.errors import DataError
from vipocc.evaluation.depth.truth import TruthReader
from vipocc.evaluation.inputs import FrameSource, RowReader, committed, frame_of, group_of
from vipocc.evaluation.metrics import DEPTH, Scaling, depth_metrics
from vipocc.evaluation.protocols import DepthProtocol
from vipocc.evaluation.published import rows_beside
from vipocc.evaluation.report import Frame, Kind, Report, Row, Skipped, TruthDigest
from vipocc.model.network import ViPOcc
from vipocc.progress import progress

METRICS = (*DEPTH, "covered")

_ROWS: dict[str, tuple[Kind, Scaling]] = {
    "rendered": ("measured", "none"),
    "branch": ("measured", "none"),
    "prior": ("prior", "none"),
    "prior, median-scaled": ("prior", "median"),
}


def predict_depths(
    model: ViPOcc,
    images: Tensor,
    intrinsics_ndc: Tensor,
    priors: Sequence[NDArray[Any] | None],
    maps: Mapping[str, Tensor] | None = None,
) -> list[dict[str, NDArray[np.float32]]]:
    """Return for each image the depth maps [H, W] in metres that can be had of it.

    `rendered` always; `prior` where there is pseudo-depth, and there `branch`, too, if the model has a depth branch (a
    branch that predicts depth without a prior gives one always). Pixels whose prior is missing are NaN.
    """
    jitter = None
    if model.config.renderer.evaluation_jitter:
        jitter = torch.Generator(images.device).manual_seed(0)
    with torch.no_grad():
        height, width = images.shape[-2:]
        rendered = model.render_depth(
            model.encode_keys(images, intrinsics_ndc, maps), intrinsics_ndc, (height, width), jitter=jitter
        )
        found = [{"rendered": one} for one in rendered[:, 0].float().cpu().numpy()]
        having = [at for at, prior in enumerate(priors) if prior is not None]
        if having:
            stacked = np.stack([np.asarray(priors[at], np.float32) for at in having])[:, None]
            for place, at in enumerate(having):
                found[at]["prior"] = stacked[place, 0]
        branch = model.depth_branch
        if branch is not None and not branch.needs_prior:
            refined = model.refine_depth(images)
            for at in range(len(priors)):
                found[at]["branch"] = refined[at, 0].float().cpu().numpy()
        elif branch is not None and having:
            refined = model.refine_depth(images[having], torch.from_numpy(stacked).to(images.device))
            for place, at in enumerate(having):
                found[at]["branch"] = refined[place, 0].float().cpu().numpy()
    return found


def evaluate_depth(
    model: ViPOcc,
    source: FrameSource,
    keys: Sequence[FrameKey],
    truth: TruthReader,
    priors: RowReader | None,
    protocol: DepthProtocol,
    *,
    split: str,
    device: torch.device,
    prior_note: str = "",
    scaling: Scaling = "none",
    keep: Callable[[Frame, NDArray[np.uint8], dict[str, NDArray[np.float32]], NDArray[np.float32]], None] | None = None,
) -> Report:
    """Evaluate rendered and refined depth, and the prior itself, beside published rows.

    Args:
        model: the network.
        source: the prepared images.
        keys: the frames.
        truth: the protocol's ground truth.
        priors: `depth.zarr`, or None; frames that it lacks have no row values of branch and prior.
        protocol: what is measured.
        split: its name, for the report.
        device: where the network is.
        prior_note: what to say of the prior's source wherever it shows.
        scaling: of the network's depths, `none` as published.
        keep: called for each evaluated frame with image, depth maps by name and truth.

    Raises:
        MissingInputError: no frame is prepared.
        DataError: a depth map is negative or infinite.
    """
    keys, skipped = source.split(keys)
    config = source.config.evaluation
    used: list[Frame] = []
    digest = TruthDigest()
    values: dict[str, tuple[list[Frame], list[Mapping[str, float]]]] = {name: ([], []) for name in _ROWS}
    with progress("depth", len(keys)) as bar:
        for some, images, intrinsics in source.batches(keys, config.batch_size, device):
            known = [_prior(priors, key) for key in some]
            depths = predict_depths(model, images, intrinsics, known, source.maps(some, device))
            for key, found in zip(some, depths, strict=True):
                frame, true = frame_of(source.manifest, key), truth(key)
                if true is None or not (np.isfinite(true) & (true > 0)).any():
                    skipped.append(Skipped(frame, f"no {protocol.truth} depth"))
                    continue
                used.append(frame)
                digest.add(frame, true)
                for name, (kind, own) in _ROWS.items():
                    chosen = found.get(name.split(",")[0])
                    if chosen is not None:
                        wanted = own if kind == "prior" else scaling
                        values[name][0].append(frame)
                        values[name][1].append(_metrics(chosen, true, wanted, protocol, name, frame))
                if keep is not None:
                    keep(frame, source.image(key), found, true)
            bar.advance(len(some))

    rows = [
        Row.measured(
            name,
            kind,
            *values[name],
            config.resamples,
            config.confidence,
            note=_note(name, kind, scaling, prior_note),
        )
        for name, (kind, _) in _ROWS.items()
        if values[name][0]
    ]
    described = {**protocol.describe(), "scaling": scaling, "digest": protocol.digest}
    rows += rows_beside("depth", source.manifest.dataset, split, described, len(used))
    notes = ["Means over frames with bootstrap intervals; published rows are others' numbers, not measured here."]
    if model.depth_branch is None:
        notes.append("The model has no depth branch.")
    elif not values["branch"][0]:
        notes.append(f"No pseudo-depth of split {split}: the branch and the prior are left out.")
    return Report(
        kind="depth",
        dataset=source.manifest.dataset,
        split=split,
        protocol=described,
        metrics=DEPTH,
        rows=rows,
        used=used,
        skipped=skipped,
        truth_digest=digest.value,
        truth_frames=digest.frames,
        notes=notes,
    )


def _prior(priors: RowReader | None, key: FrameKey) -> NDArray[Any] | None:
    if priors is None or not committed(priors, group_of(key), key.row):
        return None
    return np.asarray(priors.read(group_of(key), key.row, "depth"))


def _metrics(
    predicted: NDArray[Any], true: NDArray[Any], scaling: Scaling, protocol: DepthProtocol, name: str, frame: Frame
) -> dict[str, float]:
    try:
        return depth_metrics(predicted, true, scaling, protocol.cap)
    except DataError as error:
        raise DataError(
            f"{name} depth: {error.what}", where=f"{frame.sequence} {frame.camera} frame {frame.frame_id}"
        ) from None


def _note(name: str, kind: Kind, scaling: Scaling, prior_note: str) -> str:
    parts = [f"{scaling} scaling"] if kind == "measured" and scaling != "none" else []
    if name != "rendered" and prior_note:
        parts.append(prior_note)
    return ", ".join(parts)
