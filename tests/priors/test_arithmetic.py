"""What networks compute in is said for them alone: the process's own settings come back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from vipocc.priors.arithmetic import arithmetic

CPU = torch.device("cpu")


def settings() -> tuple[bool, bool, str, bool]:
    cudnn = torch.backends.cudnn
    return cudnn.enabled, cudnn.allow_tf32, torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")


@pytest.fixture(params=["highest", "high", "medium"])
def before(request: pytest.FixtureRequest) -> Iterator[tuple[bool, bool, str, bool]]:
    kept = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield settings()
    torch.set_float32_matmul_precision(kept)


@pytest.mark.parametrize(
    ("dtype", "tf32", "expected"),
    [
        ("float32", False, (True, False, "highest", False)),
        ("bfloat16", False, (True, False, "highest", True)),
        ("bfloat16", True, (True, True, "high", True)),
    ],
)
def test_settings_hold_inside_and_come_back(
    before: tuple[bool, bool, str, bool], dtype: str, tf32: bool, expected: tuple[bool, bool, str, bool]
) -> None:
    with arithmetic(CPU, dtype, tf32=tf32):
        assert settings() == expected
    assert settings() == before


def test_settings_come_back_after_a_failure(before: tuple[bool, bool, str, bool]) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), arithmetic(CPU, "bfloat16", tf32=True):
        raise RuntimeError("on purpose")
    assert settings() == before
