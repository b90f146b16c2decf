"""The step as one CUDA graph, with kernels and compiled networks, against the step as Python runs it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_trainer import losses_of
from tiny_world import TinyWorld

from vipocc.errors import DeviceError
from vipocc.model.field import MLPHead
from vipocc.training.session import start_training

pytestmark = pytest.mark.gpu

PLAIN = ("training.cuda_graph=false", "training.fused=false", "training.compile=never")
SHORT = ("training.device=cuda", "training.validation_frames=0", "training.batch_size=4")


def losses(world: TinyWorld, name: str, *more: str) -> list[float]:
    start_training(world.workspace, world.configured(*SHORT, *more), name=name, say=lambda text: None)
    return [loss for _, loss in losses_of(world.workspace.runs / name)]


@pytest.mark.parametrize("profile", ["paper", "official"])
@pytest.mark.parametrize("fast", [("training.cuda_graph=true",), ("training.fused=true",), ()])
def test_fast_steps_are_plain_steps_in_float32(world: TinyWorld, profile: str, fast: tuple[str, ...]) -> None:
    """Draws are the same, sums in another order."""
    more = ("training.dtype=float32", f"profile={profile}")
    found = losses(world, "fast", *more, *(*PLAIN[:2], *fast) if fast else ("training.compile=always",))
    assert found == pytest.approx(losses(world, "plain", *more, *PLAIN), rel=2e-3)


def test_a_head_that_asks_the_host_is_named(world: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = MLPHead.forward

    def asking(self: MLPHead, prepared: Any, query: Any) -> torch.Tensor:
        found = plain(self, prepared, query)
        assert found.sum().item() >= 0
        return found

    monkeypatch.setattr(MLPHead, "forward", asking)
    with pytest.raises(DeviceError, match=r"cannot be recorded as a CUDA graph .*training.cuda_graph=false"):
        losses(world, "asking", "training.fused=false")
