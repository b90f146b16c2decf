from __future__ import annotations

import pytest
import torch

from vipocc.errors import DeviceError
from vipocc.priors.batching import ON_CPU, BatchSize

CUDA = torch.device("cuda")


class Device:
    """Stands in for a network on a device whose memory holds `room` items and which is busy `cost` seconds a call."""

    def __init__(self, room: int, fixed: float = 1.0, each: float = 0.1) -> None:
        self.room, self.fixed, self.each = room, fixed, each
        self.clock = 0.0
        self.sizes: list[int] = []

    def run(self, size: int) -> None:
        if size > self.room:
            raise torch.OutOfMemoryError("out of memory")
        self.clock += self.fixed + self.each * size
        self.sizes.append(size)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def make(device: Device, asked: int | str = "auto") -> BatchSize:
        monkeypatch.setattr(BatchSize, "_now", lambda self: device.clock)
        monkeypatch.setattr(BatchSize, "_free", lambda self: None)
        return BatchSize(asked, CUDA)  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize(("room", "expected"), [(1, 1), (2, 2), (7, 4), (40, 32), (1000, 64)])
def test_auto_doubles_while_it_fits(on, room: int, expected: int) -> None:  # type: ignore[no-untyped-def]
    device = Device(room)
    batch = on(device)
    assert batch.find(device.run) == expected
    assert batch.find(device.run) == expected
    assert device.sizes[-2:] != [expected * 2] * 2


def test_auto_stops_where_larger_batches_gain_nothing(on) -> None:  # type: ignore[no-untyped-def]
    device = Device(1000, fixed=0.3, each=1.0)  # 1.30, 1.15, 1.075, 1.04, 1.02 seconds an item
    assert on(device).find(device.run) == 8


def test_not_one_item_fitting_is_an_error(on) -> None:  # type: ignore[no-untyped-def]
    device = Device(0)
    with pytest.raises(DeviceError, match="out of memory with one item"):
        on(device).find(device.run)


def test_auto_is_fixed_on_the_cpu() -> None:
    batch = BatchSize("auto", torch.device("cpu"))
    assert batch.find(lambda size: pytest.fail("nothing is tried on the CPU")) == ON_CPU


def test_running_out_of_memory_halves_the_size_and_loses_no_item(on, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    device = Device(16)
    batch = on(device)
    batch.find(device.run)
    assert batch.size == 16
    done: list[int] = []

    def call(start: int, stop: int) -> int:
        if start >= 16:
            device.room = 5  # somebody else came to the device
        device.run(stop - start)
        done.extend(range(start, stop))
        return stop - start

    parts = list(batch.split(50, call))
    assert done == list(range(50))
    assert parts == [16, *[4] * 8, 2]
    assert batch.size == 4
    assert "going on with 4" in "".join(capsys.readouterr())


def test_a_size_that_was_given_is_kept_or_refused(on) -> None:  # type: ignore[no-untyped-def]
    device = Device(4)
    with pytest.raises(DeviceError, match=r"8 items at once.*--batch-size"):
        list(on(device, 8).split(9, lambda start, stop: device.run(stop - start)))
    assert not device.sizes
    list(on(device, 3).split(7, lambda start, stop: device.run(stop - start)))
    assert device.sizes == [3, 3, 1]
    assert on(device, 9).find(device.run, 2) == 2


def test_a_single_item_that_does_not_fit_any_more_is_an_error(on) -> None:  # type: ignore[no-untyped-def]
    device = Device(0)
    with pytest.raises(DeviceError, match="out of memory with one item"):
        list(on(device).split(3, lambda start, stop: device.run(stop - start)))


@pytest.mark.gpu
def test_a_real_device_that_is_full_is_worked_on_in_halves() -> None:
    batch = BatchSize("auto", CUDA)
    free, _ = torch.cuda.mem_get_info()
    item = free // 3

    def call(start: int, stop: int) -> int:
        held = torch.empty((stop - start) * item, dtype=torch.uint8, device="cuda")
        return int(held.numel() // item)

    assert batch.find(lambda size: call(0, size)) in (1, 2)
    batch.size = 8
    assert sum(batch.split(11, call)) == 11
    assert batch.size == 2
