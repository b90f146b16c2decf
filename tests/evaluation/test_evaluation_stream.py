from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc import config as configuration
from vipocc.data_manifests.manifest import FrameKey
from vipocc.errors import DataError, StoreError
from vipocc.evaluation import stream as streaming
from vipocc.evaluation.inputs import FrameSource, untrained_model
from vipocc.evaluation.predictors.interface import Batch
from vipocc.evaluation.stream import GROUP, judged, judged_reference, stream, stream_reference
from vipocc.stores import ArraySpec, LocalExecutor, Store, StoreReader, StoreSpec, requests_for, run
from vipocc.stores.spec import Unit

SIZE = (64, 96)
GROUP_NAME = "drive/image_00"
FRAMES = 41
CPU = torch.device("cpu")


class Pictures:
    """Writes frames.zarr: every image is of its row."""

    rows_per_call = 8

    def open(self, device: str) -> None: ...

    def compute(self, unit: Unit, rows: Sequence[int]) -> Mapping[str, NDArray[Any]]:
        return {"rgb": np.stack([np.random.default_rng(row).integers(0, 256, (*SIZE, 3), np.uint8) for row in rows])}

    def close(self) -> None: ...

    def notes(self) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> StoreReader:
    folder = tmp_path_factory.mktemp("frames")
    spec = StoreSpec("frames", (ArraySpec("rgb", (*SIZE, 3), "uint8", 0, ("y", "x", "channel"), "1"),), attributes={})
    store = Store.create_or_open(folder / "frames.zarr", spec, folder)
    store.ensure_group(GROUP_NAME, np.arange(FRAMES))
    run(store, requests_for(GROUP_NAME, range(FRAMES), {}), Pictures(), LocalExecutor(("cpu",)))
    return StoreReader(folder / "frames.zarr")


class FakeManifest:
    dataset = "synthetic"
    root = Path("world")

    def frame_ids(self, sequence: str) -> NDArray[np.int64]:
        return np.arange(FRAMES)


def source_of(reader: Any, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int] = SIZE) -> FrameSource:
    config = SimpleNamespace(data=SimpleNamespace(image_size=size, convention="centre"))
    made = FrameSource(FakeManifest(), reader, config)  # type: ignore[arg-type]
    monkeypatch.setattr(made, "intrinsics", lambda key: np.eye(3, dtype=np.float32) * (key.row + 1))
    return made


def keys(count: int = FRAMES) -> list[FrameKey]:
    return [FrameKey("drive", "image_00", row) for row in range(count)]


@pytest.mark.parametrize("size", [1, 4, 16, 20])
def test_batches_that_are_read_ahead_are_the_plain_ones(
    reader: StoreReader, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    source = source_of(reader, monkeypatch)
    plain = list(stream_reference(source, keys(), size, CPU))
    ahead = list(stream(source, keys(), size, CPU))
    assert [len(batch.keys) for batch in plain] == [len(batch.keys) for batch in ahead]
    for one, other in zip(plain, ahead, strict=True):
        assert one.keys == other.keys
        assert one.frames == other.frames
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.intrinsics_ndc, other.intrinsics_ndc)
    row = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (*SIZE, 3), np.uint8))
    assert torch.equal(torch.cat([batch.images for batch in ahead])[3], row.permute(2, 0, 1).float() / 255.0)


@pytest.mark.parametrize("size", [1, 16, 20])
def test_a_pipelined_evaluation_is_the_plain_one_bit_for_bit(
    reader: StoreReader, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    source = source_of(reader, monkeypatch)
    held: dict[int, Tensor] = {}

    def predict(batch: Batch) -> dict[str, Tensor]:
        # As a replayed graph does: the same memory at every call.
        place = held.setdefault(len(batch.keys), torch.empty(len(batch.keys), *SIZE))
        place.copy_(batch.images.mean(1) * batch.intrinsics_ndc[:, :1, :1].reshape(-1, 1, 1))
        return {"mean": place}

    def judge(some: Sequence[FrameKey], arrays: Mapping[str, NDArray[Any]]) -> list[float]:
        assert len(some) == len(arrays["mean"])
        return [float(values.sum() + key.row) for key, values in zip(some, arrays["mean"], strict=True)]

    plain = list(judged_reference(stream_reference(source, keys(), size, CPU), predict, judge))
    fast = list(judged(stream(source, keys(), size, CPU), predict, judge))
    assert [one.key for one in fast] == keys()
    assert [one.result for one in fast] == [one.result for one in plain]
    for one, other in zip(plain, fast, strict=True):
        assert np.array_equal(one.arrays["mean"], other.arrays["mean"])


def test_a_network_s_batches_are_the_same_whether_read_ahead(
    reader: StoreReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration.load("demo")
    model = untrained_model(config, CPU)
    source = source_of(reader, monkeypatch)
    with torch.no_grad():
        plain, ahead = (
            [model.encode(batch.images) for batch in way(source, keys(5), 2, CPU)] for way in (stream_reference, stream)
        )
    assert all(torch.equal(one, other) for one, other in zip(plain, ahead, strict=True))


def test_memory_is_bounded(reader: StoreReader, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(reader, monkeypatch)
    read: list[int] = []
    plain = source.read_images

    def counted(some: Sequence[FrameKey], out: NDArray[np.uint8]) -> None:
        read.append(len(some))
        plain(some, out)

    monkeypatch.setattr(source, "read_images", counted)
    batches = stream(source, keys() * 20, 1, CPU, ahead=2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert sum(read) <= 3 * GROUP


def test_errors_come_in_their_place(reader: StoreReader, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="64x96, not 32x96"):
        next(stream(source_of(reader, monkeypatch, (32, 96)), keys(), 4, CPU))

    source = source_of(reader, monkeypatch)
    seen = []

    def judge(some: Sequence[FrameKey], arrays: Mapping[str, NDArray[Any]]) -> list[int]:
        if some[0].row == GROUP:
            raise DataError("a frame cannot be judged")
        assert threading.current_thread() is not threading.main_thread()
        return [key.row for key in some]

    with pytest.raises(DataError, match="cannot be judged"):
        for one in judged(stream(source, keys(), 4, CPU), lambda batch: {"x": batch.images}, judge):
            seen.append(one.result)
    assert seen == list(range(GROUP))
    assert not [one for one in threading.enumerate() if one.name.startswith(("vipocc-read", "vipocc-judge"))]


def test_readers_without_gather_are_read_row_by_row(reader: StoreReader, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        has, rows, read = reader.has, reader.rows, reader.read

    (fast,), (plain,) = (list(stream(source_of(one, monkeypatch), keys(3), 3, CPU)) for one in (reader, Plain()))
    assert torch.equal(fast.images, plain.images)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1, 16, 20])
def test_on_cuda_the_pipelined_evaluation_is_the_plain_one(
    reader: StoreReader, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    device, source = torch.device("cuda"), source_of(reader, monkeypatch)
    place = torch.empty(size, *SIZE, device=device)

    def predict(batch: Batch) -> dict[str, Tensor]:
        some = place[: len(batch.keys)]
        torch.mul(batch.images[:, 0], batch.intrinsics_ndc[:, :1, 0:1], out=some)
        torch.cuda._sleep(200_000)
        return {"x": some}

    def judge(some: Sequence[FrameKey], arrays: Mapping[str, NDArray[Any]]) -> list[float]:
        return [float(values.sum()) for values in arrays["x"]]

    every = keys() * 10
    plain = list(judged_reference(stream_reference(source, every, size, device), predict, judge))
    fast = list(judged(streaming.stream(source, every, size, device), predict, judge))
    assert [one.result for one in fast] == [one.result for one in plain]
