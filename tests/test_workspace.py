from __future__ import annotations

from pathlib import Path

import pytest

from vipocc.errors import UsageError, WorkspaceError
from vipocc.workspace import Workspace


def test_create_then_find_from_a_folder_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Workspace.create(tmp_path, "synthetic")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert Workspace.find() == made


def test_a_dataset_starts_from_its_own_preset(tmp_path: Path) -> None:
    for dataset, preset in (("synthetic", "demo"), ("kitti-raw", "vipocc_kitti_raw"), ("kitti-360", "vipocc")):
        (tmp_path / dataset / "root").mkdir(parents=True)
        assert Workspace.create(tmp_path / dataset, dataset, tmp_path / dataset / "root").preset == preset


def test_the_environment_names_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Workspace.create(tmp_path / "w", "synthetic")
    monkeypatch.setenv("VIPOCC_WORKSPACE", str(tmp_path / "w"))
    assert Workspace.find() == made


def test_a_moved_workspace_keeps_its_synthetic_root(tmp_path: Path) -> None:
    Workspace.create(tmp_path / "old", "synthetic")
    (tmp_path / "old").rename(tmp_path / "new")
    assert Workspace.open(tmp_path / "new").root == tmp_path / "new" / "synthetic"


def test_creating_twice_is_nothing_and_another_dataset_is_refused(tmp_path: Path) -> None:
    Workspace.create(tmp_path, "synthetic")
    before = (tmp_path / "vipocc.yaml").read_bytes()
    Workspace.create(tmp_path, "synthetic")
    (tmp_path / "k").mkdir()
    with pytest.raises(WorkspaceError, match="already a workspace of synthetic"):
        Workspace.create(tmp_path, "kitti-360", tmp_path / "k")
    assert (tmp_path / "vipocc.yaml").read_bytes() == before


def test_a_real_dataset_needs_a_root_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--root"):
        Workspace.create(tmp_path, "kitti-360")
    with pytest.raises(WorkspaceError, match="correct --root"):
        Workspace.create(tmp_path, "kitti-360", tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "- a", "format_version: 1\n", "{", "format_version: 1\ndataset: ddad\nroot:\npreset: x"]
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "vipocc.yaml").write_text(text)
    with pytest.raises(WorkspaceError, match="damaged"):
        Workspace.open(tmp_path)


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "vipocc.yaml").write_text("format_version: 9\ndataset: ddad\nroot: x\npreset: y\noverrides: []\n")
    with pytest.raises(WorkspaceError, match="format 9 is not known"):
        Workspace.open(tmp_path)
