"""How well ray samplers use their rays: Table 10's N_v, N_vc and psi_v, random beside SNOG, and where the rays lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import MissingInputError
from vipocc.evaluation.inputs import RowReader, committed, frame_of, group_of
from vipocc.evaluation.metrics import aggregate_all
from vipocc.evaluation.protocols import Protocol
from vipocc.evaluation.published import rows_beside
from vipocc.evaluation.report import Report, Row, Skipped
from vipocc.priors.anchors import read_instances
from vipocc.priors.snog import Instances, SnogConfig, draw_anchors, draw_uniform, mixture
from vipocc.priors.snog.figures import covered_rays
from vipocc.progress import progress
from vipocc.stores import StoreReader

METRICS = ("n_v", "n_vc", "psi_v")
STORED = "SNOG, stored anchors"
NOTHING = "no instance"

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
    anchors: RowReader | None = None,
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
        anchors: `anchors.zarr`, whose stored draws are then measured beside the two.

    Raises:
        MissingInputError: none of the images has a record.
    """
    there = [key for key in keys if committed(reader, group_of(key), key.row)]
    skipped = [Skipped(frame_of(manifest, key), "no instances") for key in keys if key not in set(there)]
    if not there:
        raise MissingInputError(
            f"no instances of split {split}", where=manifest.dataset, fix=f"run `vipocc priors sam --split {split}`"
        )
    rng = np.random.default_rng([seed, _purpose("evaluation.sampler")])
    # Which of an image's stored draws: numbers of its own, so that the other rows are the same with and without it.
    which = np.random.default_rng([seed, _purpose("evaluation.sampler.stored")])
    order = [there[int(at)] for at in rng.permutation(len(there))]
    tallies = {name: Tally() for name in ("random", "SNOG", *([STORED] if anchors is not None else []))}
    classes = [str(label) for label in reader.attrs["labels"]]
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
            drawn: dict[str, NDArray[Any]] = {
                "random": draw_uniform(size, config.patch, config.anchors, rng),
                "SNOG": draw_anchors(mixture(held, size, config), config.anchors, rng),
            }
            if anchors is not None and committed(anchors, group_of(key), key.row):
                stored = np.asarray(anchors.read(group_of(key), key.row, "anchors"))
                drawn[STORED] = stored[which.integers(len(stored))].astype(np.int64)
            labels = class_map(held, np.asarray(reader.read(group_of(key), key.row, "label")))
            for name, one in drawn.items():
                tallies[name].add(one, critical, labels, config.patch, len(classes))
            bar.advance()

    rows = [
        Row(name, "measured", aggregate_all(tally.values, resamples, confidence), _note(note, name, tally, iterations))
        for name, tally in tallies.items()
        if tally.values
    ]
    by_class = [
        Row(f"{label}, {name}", "measured", aggregate_all(found, resamples, confidence))
        for at, label in enumerate([*classes, NOTHING])
        for name, tally in tallies.items()
        if (found := tally.of_class(at)) and any(value["area_share"] or value["ray_share"] for value in found)
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
        breakdowns={"Rays by class of the instances they lie on": by_class},
        notes=[
            f"{iterations:,} draws of {config.anchors} patches of {config.patch}x{config.patch} by each sampler; "
            f"{bare:,} on an image without critical instances, where both are uniform.",
            "n counts draws; ψ_v is a share of the distinct rays.",
            *([] if anchors is not None else ["There are no stored anchors: `vipocc priors sam` writes them."]),
        ],
    )


def class_map(held: Instances, labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return for each pixel [H, W] the number of its instance's class, -1 where there is no instance.

    labels: class numbers of the instances, at least as many as there are.
    """
    return np.append(-1, labels.astype(np.int64)[: len(held.areas)])[held.index]


class Tally:
    """What a sampler's draws came to."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []
        self._shares: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

    def add(
        self, anchors: NDArray[Any], critical: NDArray[np.bool_], labels: NDArray[np.int64], patch: int, classes: int
    ) -> None:
        """Count the rays of anchors [n, 2] of an image; `labels` from `class_map`, of `classes` classes."""
        covered = covered_rays(anchors, critical.shape, patch)
        distinct, on_instances = int(np.count_nonzero(covered)), int(np.count_nonzero(covered & critical))
        self.values.append({"n_v": float(distinct), "n_vc": float(on_instances), "psi_v": on_instances / distinct})
        # No instance is -1 and comes last.
        rays = np.bincount(labels[covered] % (classes + 1), minlength=classes + 1)
        area = np.bincount(labels.reshape(-1) % (classes + 1), minlength=classes + 1)
        self._shares.append((rays / distinct, area / labels.size))

    def of_class(self, number: int) -> list[dict[str, float]]:
        """Return the shares of a class over the draws; the number of classes stands for no instance."""
        return [{"ray_share": float(rays[number]), "area_share": float(area[number])} for rays, area in self._shares]


def _purpose(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _note(note: str, name: str, tally: Tally, iterations: int) -> str:
    lacking = iterations - len(tally.values)
    told = f"of {lacking:,} draws the image has no stored anchors" if lacking else ""
    return "; ".join(filter(None, (note, "what training draws from" if name == STORED else "", told)))
