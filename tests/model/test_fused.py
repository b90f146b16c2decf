"""The fused kernels against their plain twins: on the CPU by Triton's interpreter, on CUDA as they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CASES = Path(__file__).parent / "fused_cases.py"


def test_values_and_gradients_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="Triton is part of PyTorch's CUDA builds for Linux")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(CASES)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for differences in json.loads(done.stdout):
        assert len(differences) == 8, "three values, and the gradients of the features and of four parameters"
        for name, difference in differences.items():
            assert difference < (1e-3 if name.startswith("gradient") else 1e-5), name


@pytest.mark.gpu
@pytest.mark.parametrize(("samples", "hidden", "hard_cap"), [(64, 64, True), (32, 32, True), (64, 64, False)])
def test_values_and_gradients_on_cuda(samples: int, hidden: int, hard_cap: bool) -> None:
    from fused_cases import case, differences

    torch.backends.cuda.matmul.allow_tf32 = False
    made = case(rays=200, samples=samples, hidden=hidden, size=(48, 160), hard_cap=hard_cap, device="cuda")
    for name, difference in differences(made).items():
        assert difference < (1e-2 if name.startswith("gradient") else 1e-3), name
