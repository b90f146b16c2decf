from __future__ import annotations

import pytest
import torch
from model_cases import SMALL

from vipocc.errors import DeviceError
from vipocc.model.network import ViPOcc
from vipocc.model.replay import Replayed


def test_on_the_cpu_the_function_is_called() -> None:
    doubled = Replayed(lambda x: 2 * x)
    assert torch.equal(doubled(torch.ones(3)), torch.full((3,), 2.0))


@pytest.mark.gpu
def test_replaying_gives_what_calling_gives_for_every_shape() -> None:
    model = ViPOcc(SMALL).cuda().eval()
    replayed = Replayed(model.encode)
    for batch in (1, 2, 1):
        images = torch.rand(batch, 3, 64, 96, device="cuda")
        with torch.no_grad():
            assert torch.allclose(replayed(images), model.encode(images), atol=1e-2)


@pytest.mark.gpu
def test_a_function_that_asks_the_host_is_refused() -> None:
    with pytest.raises(DeviceError, match="cannot be recorded"):
        Replayed(lambda x: x * x.sum().item())(torch.ones(3, device="cuda"))
