"""Files that are no released checkpoint, or more than one: each refused in one sentence, nothing executed."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import SMALL
from safetensors.torch import save_file
from torch import Tensor

from vipocc import config as configuration
from vipocc.errors import CheckpointError
from vipocc.model.network import ViPOcc
from vipocc.model.released.exporting import released_state
from vipocc.model.released.importing import import_released
from vipocc.model.released.reading import RECIPE, read_released


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """BTS's layout with the smallest encoder."""
    changes = ["model.encoder.name=resnet18", "model.depth_branch.kind=none"]
    model = configuration.load("vipocc", profile="official", overrides=changes).model
    torch.manual_seed(0)
    return dict(released_state(ViPOcc(model, "official", initialise=False)))


@pytest.fixture(scope="module")
def good(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.pt"
    torch.save({"model": state}, path)
    return path


def refused(path: Path, tmp_path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        import_released(path, tmp_path / "made")
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert caught.value.fix
    assert not (tmp_path / "made").exists()
    return message


class _Runs:
    """Would run a command when unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["trainer", "model", "alone"])
def test_a_malicious_file_is_refused_by_name_and_runs_nothing(tmp_path: Path, zipped: bool, place: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / "bad.pt"
    held: object = _Runs(trace) if place == "alone" else {"model": {}, place: {"a": _Runs(trace)}}
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    message = refused(path, tmp_path)
    assert not trace.exists()
    assert "'posix.system'" in message
    assert RECIPE in message
    # The check of the test: the same file does run it where pickles are trusted.
    torch.load(path, weights_only=False)
    assert trace.exists()


def test_the_recipe_makes_a_file_that_is_read(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"model": state, "config": argparse.Namespace(lr=1e-4)}, tmp_path / "FILE.pt")
    assert "'argparse.Namespace'" in refused(tmp_path / "FILE.pt", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert RECIPE.startswith('python -c "')
    exec(RECIPE.removeprefix('python -c "').removesuffix('"'), {})
    assert read_released(tmp_path / "weights.pt").system == "BTS"


@pytest.mark.parametrize("kept", [0, 1, 3, 200, 0.5, -1, -40])
def test_truncated_files_are_one_sentence(good: Path, tmp_path: Path, kept: float) -> None:
    content = good.read_bytes()
    path = tmp_path / "x.pt"
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    assert "download it again" in refused(path, tmp_path)


def test_an_altered_byte_is_found(good: Path, tmp_path: Path) -> None:
    content = bytearray(good.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "x.pt").write_bytes(content)
    assert "checksum" in refused(tmp_path / "x.pt", tmp_path)


def test_a_zip_of_something_else_is_told_by_what_it_holds(good: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("kitti_360/training_checkpoint.pt", "x")
    assert "an archive of other files, kitti_360/training_checkpoint.pt for one" in refused(tmp_path / "x.pt", tmp_path)
    with zipfile.ZipFile(tmp_path / "empty.pt", "w"):
        pass
    assert "download it again" in refused(tmp_path / "empty.pt", tmp_path)
    # The pickle without the tensors that it points to.
    with zipfile.ZipFile(good) as whole, zipfile.ZipFile(tmp_path / "hollow.pt", "w") as archive:
        for name in whole.namelist():
            if "/data/" not in name:
                archive.writestr(name, whole.read(name))
    assert "download it again" in refused(tmp_path / "hollow.pt", tmp_path)


def test_safetensors_and_our_own_files_are_told_apart(tmp_path: Path) -> None:
    ViPOcc(SMALL).save_pretrained(tmp_path / "ours")
    assert "a checkpoint of vipocc already" in refused(tmp_path / "ours", tmp_path)
    assert "use the folder that the file lies in" in refused(tmp_path / "ours" / "model.safetensors", tmp_path)
    save_file({"a": torch.ones(2)}, tmp_path / "x.pt")
    assert "a safetensors file" in refused(tmp_path / "x.pt", tmp_path)
    torch.save({"step": 3, "samples": 24, "optimiser": {}}, tmp_path / "state.pt")
    assert "training state of a run of vipocc" in refused(tmp_path / "state.pt", tmp_path)


def test_other_things_are_one_sentence(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.pt", tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "there is no .pt file in it" in refused(folder, tmp_path)
    (folder / "training_1.pt").touch()
    assert "it holds training_1.pt" in refused(folder, tmp_path)
    for number, held in enumerate(([torch.ones(1)], {"model": {}}, {}, 3, {"epoch": 3})):
        torch.save(held, tmp_path / f"{number}.pt")
        refused(tmp_path / f"{number}.pt", tmp_path)
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    assert "weight [2, 2], bias [2]" in refused(tmp_path / "linear.pt", tmp_path)
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    refused(tmp_path / "bare.pt", tmp_path)


def test_what_is_there_already_is_kept_unless_asked(good: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="something of that name already"):
        import_released(good, tmp_path / "made", overwrite=True)
    assert (tmp_path / "made" / "notes.txt").read_text() == "mine"
    first = import_released(good, tmp_path / "two")
    with pytest.raises(CheckpointError, match="--overwrite"):
        import_released(good, tmp_path / "two")
    (first.folder / "README.md").write_text("old")
    import_released(good, tmp_path / "two", overwrite=True)
    assert "# BTS" in (first.folder / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "two"]


def test_a_place_that_cannot_be_written_is_one_sentence(good: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot be written.*--output"):
        import_released(good, tmp_path / "file" / "made")
