from __future__ import annotations

import argparse
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from vipocc.errors import CheckpointError
from vipocc.priors.pth import find_pth, is_pth, load_pth

STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.full((700,), 2, dtype=torch.int64)}


@pytest.mark.parametrize("wrap", ["none", "model", "state_dict", "module", "model and module"])
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_back_whatever_they_are_wrapped_in(tmp_path: Path, wrap: str, zipped: bool) -> None:
    held: dict[str, object] = dict(STATE)
    if "module" in wrap:
        held = {f"module.{name}": value for name, value in held.items()}
    if wrap.startswith(("model", "state_dict")) and wrap != "module":
        held = {wrap.split()[0]: held, "epoch": 3}
    torch.save(held, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = load_pth(tmp_path / "x.pth", "--model")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_a_prefix_that_only_some_names_have_is_kept(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "x.pth")
    assert set(load_pth(tmp_path / "x.pth", "--model")) == {"module.a", "b"}


class _Opener:
    """Would create a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    file, trace = tmp_path / "x.pth", tmp_path / "trace"
    torch.save({"model": STATE, "extra": _Opener(trace)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as caught:
        load_pth(file, "--model")
    assert not trace.exists()
    assert "open" in caught.value.what
    _one_sentence(caught.value, file)


def test_an_object_that_is_refused_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    torch.save({"model": STATE, "args": argparse.Namespace(lr=1)}, file)
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace"):
        load_pth(file, "--detector")


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(pickle.dumps({"a": _Opener(tmp_path / "trace")}))
    with pytest.raises(CheckpointError) as caught:
        load_pth(file, "--model")
    assert not (tmp_path / "trace").exists()
    _one_sentence(caught.value, file)


DAMAGES = ("absent", "empty", "text", "half", "tail", "folder in the zip", "list")


# Only the newer format has checksums by which an altered byte is found.
@pytest.mark.parametrize(
    ("damage", "zipped"), [(damage, zipped) for zipped in (True, False) for damage in DAMAGES] + [("altered", True)]
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, damage: str, zipped: bool) -> None:
    file = tmp_path / "x.pth"
    torch.save(STATE, file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    if damage == "absent":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "text":
        file.write_text("version https://git-lfs\noid sha256:0\n")
    elif damage == "half":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "tail":
        file.write_bytes(content[:-30])
    elif damage == "altered":
        at = content.index(STATE["b"].numpy().tobytes()) + 1000
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif damage == "folder in the zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("something/else.txt", "x")
    else:
        torch.save([torch.ones(2)], file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as caught:
        load_pth(file, "--model")
    _one_sentence(caught.value, file)


def test_what_is_no_tensor_is_named(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="'epoch', a int"):
        load_pth(tmp_path / "x.pth", "--model")


def test_files_are_told_by_digest_and_official_names_give_licences(tmp_path: Path) -> None:
    names = {
        "depth_anything_v2_metric_vkitti_vits.pth": "apache-2.0",
        "depth_anything_v2_metric_hypersim_vitl.pth": "cc-by-nc-4.0",
        "sam_vit_h_4b8939.pth": "apache-2.0",
        "groundingdino_swint_ogc.pth": "apache-2.0",
        "mine.pt": "unknown",
    }
    digests = set()
    for number, (name, licence) in enumerate(names.items()):
        torch.save({**STATE, "n": torch.tensor(number)}, tmp_path / name)
        found = find_pth(str(tmp_path / name), "--model")
        assert (found.licence, found.folder, found.revision) == (licence, tmp_path / name, None)
        assert found.provenance()["model"] == name
        digests.add(found.digest)
    assert len(digests) == len(names)


def test_a_name_that_is_no_file_is_refused(tmp_path: Path) -> None:
    assert is_pth("a/b.pth")
    assert not is_pth("depth-anything/Depth-Anything-V2-Metric-Outdoor-Large-hf")
    (tmp_path / "folder.pth").mkdir()
    assert not is_pth(str(tmp_path / "folder.pth"))
    for name in (tmp_path / "absent.pth", tmp_path / "folder.pth", tmp_path / "x.bin"):
        with pytest.raises(CheckpointError, match="correct --model"):
            find_pth(str(name), "--model")


def _one_sentence(error: CheckpointError, file: Path) -> None:
    assert str(file) in str(error)
    assert "\n" not in str(error)
    assert error.fix
