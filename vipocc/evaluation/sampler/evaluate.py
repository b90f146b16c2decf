"""How well ray samplers use their rays: Table 10's N_v, N_vc and psi_v, random beside SNOG."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import MissingInputError
from vipocc.evaluation.inputs import committed, frame_of, group_of
from vipocc.evaluation.metrics import aggregate_all
from vipocc.evaluation.protocols import Protocol
from vipocc.evaluation.published import rows_beside
from vipocc.evaluation.report import Report, Row, Skipped
from vipocc.priors.anchors import read_instances
from vipocc.priors.snog import SnogConfig, draw_anchors, draw_uniform, mixture, valid_rays
from vipocc.progress import progress
from vipocc.stores import StoreReader

METRICS = ("n_v", "n_vc", "psi_v")

PROTOCOL = Protocol("table-10", 1)
"""Eq. A.5 and A.6: distinct rays of 64 patches of 8x8 an iteration, those on critical instances, their share; the
random sampler draws patch centres independently and uniformly."""


def evaluate_sampler(
    manifest: Manifest,
    reader: StoreReader,
    keys: Sequence[FrameKey],
    config: SnogConfig,
    *,
    split: str,
    iterations: int,
    seed: int,
    resamples: int,
    confidence: float,
    note: str = "",
) -> Report:
    """Draw once for each iteration, going through the images in a random order, by both samplers.

    Args:
        manifest: of the dataset.
        reader: `instances.zarr`.
        keys: the images; those without an instance record are left out.
        config: the sampler.
        split: its name, for the report.
        iterations: draws T; 1,000 as published.
        seed: of all draws.
        resamples: of the bootstrap.
        confidence: of the intervals.
        note: what to say of the instances' source.

    Raises:
        MissingInputError: none of the images has a record.
    """
    there = [key for key in keys if committed(reader, group_of(key), key.row)]
    skipped = [Skipped(frame_of(manifest, key), "no instances") for key in keys if key not in set(there)]
    if not there:
        raise MissingInputError(
            f"no instances of split {split}", where=manifest.dataset, fix=f"run `vipocc priors sam --split {split}`"
        )
    rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(b"evaluation.sampler").digest()[:4], "big")])
    order = [there[int(at)] for at in rng.permutation(len(there))]
    values: dict[str, list[dict[str, float]]] = {"random": [], "SNOG": []}
    bare = 0
    seen: dict[FrameKey, bytes] = {}
    with progress("sampler", iterations, "draws") as bar:
        for iteration in range(iterations):
            key = order[iteration % len(order)]
            held = read_instances(reader, group_of(key), key.row)
            if key not in seen:
                seen[key] = hashlib.sha256(
                    held.index.tobytes() + held.boxes.tobytes() + held.areas.tobytes() + held.gaussian.tobytes()
                ).digest()
            critical = held.critical_mask
            bare += not critical.any()
            size = (critical.shape[0], critical.shape[1])
            drawn = {
                "random": draw_uniform(size, config.patch, config.anchors, rng),
                "SNOG": draw_anchors(mixture(held, size, config), config.anchors, rng),
            }
            for name, anchors in drawn.items():
                distinct, on_instances = valid_rays(anchors, critical, config.patch)
                values[name].append(
                    {"n_v": float(distinct), "n_vc": float(on_instances), "psi_v": on_instances / distinct}
                )
            bar.advance()

    rows = [
        Row(name, "measured", aggregate_all(values[name], resamples, confidence), note) for name in ("random", "SNOG")
    ]
    described: dict[str, Any] = {**PROTOCOL.describe(), "digest": PROTOCOL.digest, "iterations": iterations}
    rows += rows_beside("sampler", manifest.dataset, split, described, len(there))
    return Report(
        kind="sampler",
        dataset=manifest.dataset,
        split=split,
        protocol={**described, "snog": config.model_dump(mode="json")},
        metrics=METRICS,
        rows=rows,
        used=[frame_of(manifest, key) for key in order[:iterations]],
        skipped=skipped,
        truth_digest=hashlib.sha256(
            b"".join(f"{group_of(key)}/{key.row}".encode() + seen[key] for key in sorted(seen))
        ).hexdigest()[:16],
        notes=[
            f"{iterations:,} draws of {config.anchors} patches of {config.patch}x{config.patch} by each sampler; "
            f"{bare:,} on an image without critical instances, where both are uniform.",
            "n counts draws; ψ_v is a share of the distinct rays.",
        ],
    )
