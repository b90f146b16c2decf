"""Metric depth of the key image against LiDAR or the exact truth (published_system.md 7.4)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import FrameKey
from vipocc.errors import DataError
from vipocc.evaluation.depth.score import BINS, METRICS, Score, counted, pooled, score
from vipocc.evaluation.depth.view import TruthReader
from vipocc.evaluation.inputs import FrameSource, frame_of
from vipocc.evaluation.metrics import DEPTH, Scaling, aggregate_all
from vipocc.evaluation.predictors.interface import Batch, DepthPredictor
from vipocc.evaluation.protocols import DepthProtocol
from vipocc.evaluation.published import rows_beside
from vipocc.evaluation.report import Frame, Report, Row, Skipped, TruthDigest
from vipocc.evaluation.stream import stream
from vipocc.progress import progress

SCALINGS: tuple[Scaling, ...] = ("none", "median", "least-squares")
_SUFFIX: Mapping[Scaling, str] = {"none": "", "median": ", median-scaled", "least-squares": ", least-squares"}
_THREADS, _WAITING = 4, 16

Maps: TypeAlias = dict[str, NDArray[np.float32]]
#: Called for each evaluated frame: image [H, W, 3], depth maps by predictor's name, truth.
KeepDepth: TypeAlias = Callable[[Frame, NDArray[np.uint8], Maps, NDArray[np.float32]], None]


@dataclass(frozen=True)
class Contender:
    """A predictor and the scalings that it is shown under, a row each."""

    predictor: DepthPredictor
    scalings: Sequence[Scaling] = ("none",)

    def row(self, scaling: Scaling) -> str:
        """The name of a row."""
        return row_name(self.predictor.name, scaling)


@dataclass(frozen=True)
class _Judged:
    """What became of a frame."""

    key: FrameKey
    maps: Maps
    truth: NDArray[np.float32] | None
    """None where there is none."""
    scores: Mapping[str, dict[Scaling, Score]]
    """By predictor; one whose map is unfit is absent."""
    faults: Sequence[str]
    """Why the frame, or a predictor's map of it, was left out."""


def row_name(predictor: str, scaling: Scaling) -> str:
    """Return what the row of a predictor under a scaling is called."""
    return predictor + _SUFFIX[scaling]


def evaluate_depth(
    contenders: Sequence[Contender],
    source: FrameSource,
    keys: Sequence[FrameKey],
    truth: TruthReader,
    protocol: DepthProtocol,
    *,
    split: str,
    device: torch.device,
    keep: KeepDepth | None = None,
    kind: Literal["depth", "priors"] = "depth",
) -> Report:
    """Evaluate predictors of depth on the same frames, beside published rows.

    A frame without truth is left out for all. A map that is missing, of no use (infinite, negative, no map at all) or
    NaN wherever there is truth leaves its frame out for that predictor alone; each is said with its reason.

    Args:
        contenders: what is evaluated, in order.
        source: the images that go in.
        keys: the frames.
        truth: the protocol's ground truth; called in threads.
        protocol: what is measured.
        split: its name, for the report.
        device: where the predictors compute.
        keep: called for each evaluated frame with image, depth maps by predictor's name and truth.
        kind: of the report.

    Raises:
        MissingInputError: no frame is prepared.
    """
    keys, skipped = source.split(keys)
    config = source.config.evaluation
    absent = [one for one in contenders if all(one.predictor.missing(key) is not None for key in keys)]
    shown = [one for one in contenders if one not in absent]
    used: list[Frame] = []
    digest = TruthDigest()
    frames: dict[str, list[Frame]] = {one.predictor.name: [] for one in shown}
    values: dict[str, list[dict[Scaling, Score]]] = {one.predictor.name: [] for one in shown}
    with progress("depth", len(keys)) as bar:
        batches = stream(source, keys, config.batch_size, device)
        for judged in _judge(_predict(shown, batches), truth, shown, protocol):
            frame = frame_of(source.manifest, judged.key)
            skipped += [Skipped(frame, fault) for fault in judged.faults]
            bar.advance()
            if judged.truth is None:
                continue
            used.append(frame)
            digest.add(frame, judged.truth)
            for name, scores in judged.scores.items():
                frames[name].append(frame)
                values[name].append(scores)
            if keep is not None:
                keep(frame, source.image(judged.key), judged.maps, judged.truth)

    rows, by_distance, together = _rows(shown, frames, values, config)
    described: dict[str, Any] = {**protocol.describe(), "digest": protocol.digest}
    networks = {scaling for one in contenders if one.predictor.kind == "measured" for scaling in one.scalings}
    described["scaling"] = next(iter(networks)) if len(networks) == 1 else None
    dataset = source.manifest.dataset
    rows += rows_beside(kind, dataset, split, described, len(used))
    return Report(
        kind=kind,
        dataset=dataset,
        split=split,
        protocol=described,
        metrics=METRICS if _partial(values) else (*DEPTH, "pixels"),
        rows=rows,
        used=used,
        skipped=skipped,
        truth_digest=digest.value,
        truth_frames=digest.frames,
        notes=_notes(absent, keys[0], frames, len(used), split),
        breakdowns={"By distance of the truth": by_distance, "Pooled over the pixels of all frames": together},
    )


def _predict(shown: Sequence[Contender], batches: Iterable[Batch]) -> Iterator[tuple[FrameKey, Maps, list[str]]]:
    """Yield each frame with its maps by predictor, and which predictors have none of it and why."""
    for batch in batches:
        maps: list[Maps] = [{} for _ in batch.keys]
        faults: list[list[str]] = [[] for _ in batch.keys]
        for one in shown:
            predictor, having = one.predictor, []
            for at, key in enumerate(batch.keys):
                reason = predictor.missing(key)
                if reason is None:
                    having.append(at)
                else:
                    faults[at].append(f"{predictor.name}: {reason}")
            if having:
                predicted = predictor.depth(batch if len(having) == len(batch.keys) else _some(batch, having))
                for at, found in zip(having, predicted, strict=True):
                    maps[at][predictor.name] = found.detach().float().cpu().numpy()
        yield from zip(batch.keys, maps, faults, strict=True)


def _judge(
    predicted: Iterable[tuple[FrameKey, Maps, list[str]]],
    truth: TruthReader,
    shown: Sequence[Contender],
    protocol: DepthProtocol,
) -> Iterator[_Judged]:
    """Yield what becomes of each frame, in order: truth is read and compared in threads beside the network."""
    scalings = {one.predictor.name: one.scalings for one in shown}

    def judge(key: FrameKey, maps: Maps, faults: list[str]) -> _Judged:
        try:
            true = truth(key)
        except DataError as error:
            true = error.what
        if isinstance(true, str):
            return _Judged(key, maps, None, {}, [true])
        if not counted(true, protocol).any():
            return _Judged(key, maps, None, {}, ["no true depth that counts"])
        scores, unfit = {}, list(faults)
        for name, found in maps.items():
            result = score(found, true, scalings[name], protocol)
            if isinstance(result, str):
                unfit.append(f"{name}: {result}")
            else:
                scores[name] = result
        return _Judged(key, maps, true, scores, unfit)

    waiting: deque[Future[_Judged]] = deque()
    with ThreadPoolExecutor(_THREADS, "vipocc-depth") as pool:
        for entry in predicted:
            waiting.append(pool.submit(judge, *entry))
            if len(waiting) > _WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _some(batch: Batch, places: Sequence[int]) -> Batch:
    return replace(
        batch,
        keys=[batch.keys[at] for at in places],
        frames=[batch.frames[at] for at in places],
        images=batch.images[list(places)],
        intrinsics_ndc=batch.intrinsics_ndc[list(places)],
        maps={name: one[list(places)] for name, one in batch.maps.items()},
    )


def _rows(
    shown: Sequence[Contender], frames: Mapping[str, Sequence[Frame]], values: Mapping[str, list[Any]], config: Any
) -> tuple[list[Row], list[Row], list[Row]]:
    """The rows of the table, those by distance and the pooled ones."""
    rows, by_distance, together = [], [], []
    interval = (config.resamples, config.confidence)
    for one in shown:
        predictor, scores = one.predictor, values[one.predictor.name]
        if not scores:
            continue
        for scaling in one.scalings:
            name, whole = one.row(scaling), [found[scaling].whole for found in scores]
            rows.append(
                Row.measured(name, predictor.kind, frames[predictor.name], whole, *interval, note=predictor.note)
            )
            together.append(Row(name, predictor.kind, pooled(whole, *interval)))
            for at, (low, high) in enumerate(BINS):
                parts = aggregate_all([found[scaling].bins[at] for found in scores], *interval)
                if parts["pixels"].frames:
                    by_distance.append(Row(f"{name}, {low:g}-{high:g} m", predictor.kind, parts))
    return rows, by_distance, together


def _partial(values: Mapping[str, Sequence[Mapping[Scaling, Score]]]) -> bool:
    return any(score.whole["covered"] < 1 for scores in values.values() for found in scores for score in found.values())


def _notes(
    absent: Sequence[Contender], first: FrameKey, frames: Mapping[str, Sequence[Frame]], used: int, split: str
) -> list[str]:
    notes = ["Means over frames with bootstrap intervals; published rows are others' numbers, not measured here."]
    if absent:
        names = ", ".join(f"{one.predictor.name} ({one.predictor.missing(first)})" for one in absent)
        notes.append(f"Left out, with no prediction of any frame of split {split}: {names}.")
    counts = Counter(len(found) for found in frames.values())
    if len(counts) > 1 or (counts and used not in counts):
        notes.append(
            "Rows are over different frames (n): compare them only with `vipocc eval compare`, which pairs frames."
        )
    return notes
