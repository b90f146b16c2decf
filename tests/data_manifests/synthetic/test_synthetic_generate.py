"""Generating: the same bytes whatever happens on the way."""

import errno
import os
import signal
import subprocess
import sys
import time

import cv2
import pytest
from small_worlds import small_config, tree_digest

from vipocc.data_manifests.synthetic import generate as module
from vipocc.data_manifests.synthetic.contact_sheet import contact_sheet
from vipocc.data_manifests.synthetic.generate import estimate, generate, is_complete
from vipocc.errors import DataError, UsageError

TINY = {"test_drives": 0, "train_frames": 6, "scale": 0.06, "lidar_points": 640}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    generate(root, small_config(**TINY))
    return tree_digest(root)


def test_the_number_of_processes_does_not_matter(tiny, tmp_path):
    generate(tmp_path, small_config(**TINY), jobs=2)
    assert tree_digest(tmp_path) == tiny


def test_another_seed_is_another_world(tiny, tmp_path):
    generate(tmp_path, small_config(**TINY, seed=1))
    assert tree_digest(tmp_path) != tiny


def test_a_second_run_does_nothing(tmp_path, monkeypatch):
    config = small_config(**TINY)
    assert not is_complete(tmp_path, config)
    generate(tmp_path, config)
    assert is_complete(tmp_path, config)
    monkeypatch.setattr(module, "_execute", lambda *_: pytest.fail("there was nothing to do"))
    generate(tmp_path, config)
    assert not is_complete(tmp_path, small_config(**TINY, seed=2))


@pytest.mark.parametrize("files_before_kill", [pytest.param(2, marks=pytest.mark.slow), 25])
def test_a_killed_run_is_finished_by_the_next(tiny, tmp_path, files_before_kill):
    program = (
        "import sys; from pathlib import Path\n"
        "from vipocc.data_manifests.synthetic.config import WorldConfig\n"
        "from vipocc.data_manifests.synthetic.generate import generate\n"
        "generate(Path(sys.argv[1]), WorldConfig.model_validate_json(sys.argv[2]))\n"
    )
    config = small_config(**TINY)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), config.model_dump_json()], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while sum(p.is_file() for p in tmp_path.rglob("*")) < files_before_kill and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not is_complete(tmp_path, config)
    generate(tmp_path, config)
    assert tree_digest(tmp_path) == tiny


def test_what_a_killed_process_left_half_written_goes(tiny, tmp_path):
    config = small_config(**TINY)
    module.write_record(tmp_path, config, complete=False)
    half = tmp_path / "data_poses" / ".poses.txt.999999999.partial"
    half.parent.mkdir()
    half.write_bytes(b"half")
    generate(tmp_path, config)
    assert not half.exists()
    assert tree_digest(tmp_path) == tiny


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="other files"):
        generate(tmp_path, small_config(**TINY))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_worlds_folder_is_refused(tmp_path):
    module.write_record(tmp_path, small_config(**TINY), complete=True)
    before = tree_digest(tmp_path)
    with pytest.raises(DataError, match="another configuration"):
        generate(tmp_path, small_config(**TINY, seed=5))
    assert tree_digest(tmp_path) == before


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(DataError, match=r"No space left on device.*world\.json.*make room"):
        generate(tmp_path / "root", small_config(**TINY))
    assert not list((tmp_path / "root").iterdir())


def test_a_damaged_record_is_one_sentence(tmp_path):
    (tmp_path / "world.json").write_text("{")
    with pytest.raises(DataError, match=r"world\.json; remove"):
        generate(tmp_path, small_config(**TINY))


def test_bad_arguments(tmp_path):
    with pytest.raises(UsageError, match="0 processes"):
        generate(tmp_path, small_config(**TINY), jobs=0)
    with pytest.raises(UsageError, match="without drives"):
        generate(tmp_path, small_config(train_drives=0, test_drives=0))
    assert not list(tmp_path.iterdir())


def test_the_estimate_grows_with_the_world_and_is_about_right(world):
    root, config = world
    seconds, size = estimate(config)
    actual = sum(p.stat().st_size for p in root.rglob("*") if p.is_file())
    assert 0.4 < size / actual < 2.5
    assert estimate(config.model_copy(update={"scale": 0.5}))[0] > seconds
    assert estimate(config, jobs=2)[0] < seconds
    assert estimate(config.model_copy(update={"train_frames": 400}))[1] > 20 * size


def test_the_contact_sheet_shows_every_split(world, tmp_path):
    path = tmp_path / "sheet.png"
    contact_sheet(world[0], path)
    image = cv2.imread(str(path))
    blocks = image.shape[0] / 2
    assert image.shape[1] == 1600
    assert image[: int(blocks)].std() > 30
    assert image[int(blocks) :].std() > 30
    with pytest.raises(UsageError, match=r"\.png"):
        contact_sheet(world[0], tmp_path / "sheet.pdf")
