from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from vipocc.errors import StoreError
from vipocc.training.packing import Packed
from vipocc.training.prefetch import HostLane, Prefetcher, prefetched


def batch(number: int) -> Packed:
    packed = Packed.allocate({"index": ((2,), torch.int64), "images": ((2, 3, 5), torch.uint8)})
    packed.tensors()["index"].fill_(number)
    packed.tensors()["images"].fill_(number)
    return packed


class Source:
    """Batches that say in which thread they are made and whether the stream was closed."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.made, self.closed_in, self.count, self.fails_at = 0, None, count, fails_at

    def __call__(self) -> Iterator[Packed]:
        try:
            for number in range(self.count):
                if number == self.fails_at:
                    raise StoreError("a shard was altered", where="frames.zarr", fix="run it again")
                self.made += 1
                yield batch(number)
        finally:
            self.closed_in = threading.current_thread().name


class FakeLane:
    """A device whose clock is set by hand: a step of work takes two seconds, a copy as long as it is told."""

    def __init__(self, copy_takes: list[float]) -> None:
        self.copies, self.busy_until, self.log = iter(copy_takes), 0.0, []
        self.lane_free, self.total = 0.0, 0.0

    def send(self, packed: Packed) -> tuple[Packed, float]:
        self.lane_free += next(self.copies)
        self.log.append("send")
        return Packed(packed.memory.clone(), packed.layout), self.lane_free

    def mark(self) -> float:
        return self.busy_until

    def receive(self, packed: Packed, asked: float, arrived: float) -> None:
        self.total += max(arrived - asked, 0.0)
        self.busy_until = max(asked, arrived) + 2.0
        self.log.append("receive")

    def waited(self) -> float:
        total, self.total = self.total, 0.0
        return total


def test_batches_come_in_order_and_the_stream_is_closed_in_its_thread() -> None:
    source = Source(7)
    with Prefetcher(source(), HostLane()) as stream:
        seen = [(int(raw["index"][0]), int(raw["images"].sum())) for raw in stream]
    assert seen == [(number, 30 * number) for number in range(7)]
    assert source.closed_in == "vipocc-prefetch"
    with pytest.raises(StopIteration):
        next(stream)


def test_no_more_batches_are_taken_than_may_lie_ahead() -> None:
    source = Source(50)
    with Prefetcher(source(), HostLane(), depth=3) as stream:
        next(stream)
        deadline = time.monotonic() + 5
        while source.made < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        assert source.made == 5, "one given away, three ahead, one in the thread's hand"
    assert source.closed_in == "vipocc-prefetch"
    assert not any(thread.name == "vipocc-prefetch" for thread in threading.enumerate())


def test_an_error_comes_in_its_place_as_itself() -> None:
    source = Source(5, fails_at=2)
    with Prefetcher(source(), HostLane()) as stream:
        assert [int(next(stream)["index"][0]) for _ in range(2)] == [0, 1]
        with pytest.raises(StoreError, match=r"a shard was altered: frames\.zarr; run it again"):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)


def test_waiting_is_the_devices_own_time() -> None:
    """Three quick copies hide behind the steps; the fourth is late by what it takes more than them."""
    lane = FakeLane([1.0, 1.0, 1.0, 9.0])
    waits = []
    with Prefetcher(Source(4)(), lane, depth=1) as stream:
        for _ in stream:
            waits.append(lane.waited())
    # Copies arrive at 1, 2, 3, 12; steps run 1 to 3, 3 to 5, 5 to 7, so the fourth batch keeps the device waiting.
    assert waits == [1.0, 0.0, 0.0, 5.0]


def test_the_hosts_waiting_is_counted() -> None:
    def slow() -> Iterator[Packed]:
        for number in range(3):
            time.sleep(0.1)
            yield batch(number)

    with prefetched(slow(), torch.device("cpu")) as stream:
        list(stream)
        assert 0.2 < stream.waited() < 5
        assert stream.waited() == 0


@pytest.mark.gpu
def test_batches_arrive_on_the_gpu_while_it_works() -> None:
    device = torch.device("cuda")
    work = torch.randn(2048, 2048, device=device)
    with prefetched(Source(6)(), device) as stream:
        sums = []
        for raw in stream:
            assert raw["images"].device.type == "cuda"
            for _ in range(20):
                work = torch.tanh(work @ work)
            sums.append(raw["images"].sum())
        torch.cuda.synchronize()
        assert [int(value) for value in sums] == [30 * number for number in range(6)]
        assert 0 <= stream.waited() < 60


@pytest.mark.gpu
def test_waiting_on_the_gpu_is_what_it_idles() -> None:
    def late() -> Iterator[Packed]:
        yield batch(0)
        time.sleep(0.5)
        yield batch(1)

    device = torch.device("cuda")
    with prefetched(late(), device) as stream:
        for raw in stream:
            raw["images"].float().sum()
        torch.cuda.synchronize()
        assert 0.4 < stream.waited() < 5
