from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Set before torch is imported: tests use small tensors, which several threads only slow down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell ignores Ctrl-C in what it starts in the background, and processes started by tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline in wall-clock time fails on a busy machine and says nothing of the code.
settings.register_profile("vipocc", deadline=None)
settings.load_profile("vipocc")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """Real samples of the datasets: `$VIPOCC_SAMPLE_DATA`, else `../shared/data` beside the clone."""
    named = os.environ.get("VIPOCC_SAMPLE_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if (folder / "KITTI-360").is_dir():
        return folder
    if named or (os.environ.get("CI") and (REPOSITORY.parent / "shared").is_dir()):
        pytest.fail(f"real samples were expected at {folder}")
    pytest.skip("no real samples: set VIPOCC_SAMPLE_DATA to a folder with KITTI-360/")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIPOCC_WORKSPACE", raising=False)


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    """Notice a test that leaves PyTorch set otherwise: others, which compare bits, would fail for it."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before
