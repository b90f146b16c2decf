"""Which frames reports picture, what they keep of them, and what is drawn of several reports."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vipocc.errors import DataError, UsageError
from vipocc.evaluation.figures import drawing
from vipocc.evaluation.figures.choosing import Chosen, parse_picture
from vipocc.evaluation.figures.collect import Chain, DepthPictures, OccupancyPictures
from vipocc.evaluation.figures.compared import compared, nothing_shared
from vipocc.evaluation.figures.gallery import Place, files, newest
from vipocc.evaluation.figures.pictured import DISTRIBUTIONS, Pictured, read_pictured
from vipocc.evaluation.figures.voxels import VOLUME
from vipocc.evaluation.report import Frame, Report

IMAGE = np.arange(24 * 80 * 3, dtype=np.uint8).reshape(24, 80, 3)


def frame(number: int) -> Frame:
    return Frame("drive", "image_00", number, 100 + number)


def report() -> Report:
    return Report("depth", "synthetic", "test", {"name": "lidar", "digest": "0"}, (), [], [])


@pytest.mark.parametrize("passing", [0, 1, 3, 4, 5, 17, 1000])
def test_pictured_frames_are_evenly_spaced_and_few_are_held(passing: int) -> None:
    chosen: Chosen[int] = Chosen(4, [("drive", 103)])
    most = 0
    for number in range(passing):
        if chosen.wants(frame(number)):
            chosen.add(frame(number), number)
        most = max(most, len(chosen._even))
    assert most <= 8
    picked = [value for _, value in chosen.picked()]
    named, even = (picked[:1], picked[1:]) if passing > 3 else ([], picked)
    assert named == ([3] if passing > 3 else [])
    assert chosen.unmet() == ([] if passing > 3 else ["drive/103"])
    assert len(even) == len(set(even)) <= 4
    if passing >= 5:
        assert len(even) == 4
        gaps = np.diff(even)
        assert max(gaps) <= 2 * min(gaps) + 1
        assert even[-1] - even[0] >= passing / 2 - 1


def test_a_frame_is_named_by_sequence_and_id() -> None:
    assert parse_picture("2013_05_28_drive_0000_sync/250") == ("2013_05_28_drive_0000_sync", 250)
    assert parse_picture("scene/with/slashes/7") == ("scene/with/slashes", 7)
    for wrong in ("250", "/250", "drive/", "drive/x"):
        with pytest.raises(UsageError, match="SEQUENCE/FRAME"):
            parse_picture(wrong)


def full(number: int) -> Pictured:
    rng = np.random.default_rng(number)
    slices = rng.random((160, 80)) > 0.8
    return Pictured(
        frame(number),
        IMAGE,
        {"branch": rng.random((24, 80)).astype(np.float32) * 20 + 3, "rendered": np.full((24, 80), 9.0, np.float32)},
        np.full((24, 80), 10.0, np.float32),
        {"trained": slices, "prior+4m": ~slices},
        slices,
        np.zeros((160, 80), bool),
        {"trained": rng.random(VOLUME.shape) > 0.97},
    )


def write(folder: Path, frames: list[Pictured]) -> Path:
    for one in frames:
        path = folder / one.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.content())
    return folder


def test_pictured_frames_are_read_back(tmp_path: Path) -> None:
    one = full(1)
    assert one.content() == full(1).content()
    held = read_pictured(write(tmp_path, [one, full(2)]))
    assert list(held) == [frame(1), frame(2)]
    back = held[frame(1)]
    np.testing.assert_array_equal(back.image, one.image)
    np.testing.assert_allclose(back.depths["branch"], one.depths["branch"], rtol=1e-3)
    np.testing.assert_array_equal(back.slices["prior+4m"], one.slices["prior+4m"])
    np.testing.assert_array_equal(back.volumes["trained"], one.volumes["trained"])
    assert back.occupied is not None
    assert back.occupied.dtype == bool
    (tmp_path / one.file).write_bytes(one.content()[:500])
    with pytest.raises(DataError, match="damaged"):
        read_pictured(tmp_path)
    assert read_pictured(tmp_path / "nowhere") == {}


def test_depth_reports_keep_frames_and_distributions(tmp_path: Path) -> None:
    pictures, seen = DepthPictures(2, [("drive", 104)]), []
    keep = Chain(None, lambda frame, *_: seen.append(frame), pictures)
    for number in range(9):
        keep(frame(number), IMAGE, {"rendered": np.full((24, 80), 5.0 + number, np.float32)}, np.full((24, 80), 6.0))
    assert len(seen) == 9
    made = report()
    pictures.put_into(made)
    assert sum(name.startswith("pictured/drive") for name in made.attachments) == 3
    assert DISTRIBUTIONS in made.attachments
    titles = [one.title for one in made.figures]
    assert titles[0] == "drive, frame 104"
    assert titles[-2:] == ["Depth, compared", "Depth distributions"]
    assert all(isinstance(one.picture, bytes) and one.picture.startswith(b"\xff\xd8") for one in made.figures)
    pngs = [content for name, content in made.attachments.items() if name.endswith(".png")]
    assert len(pngs) == len(made.figures)
    assert all(one.startswith(b"\x89PNG") for one in pngs)
    folder = made.save(tmp_path)
    assert len(read_pictured(folder)) == 3
    assert newest(tmp_path, "depth") == folder
    assert newest(tmp_path, "occupancy") is None


def test_no_pictures_are_kept_where_none_are_wanted() -> None:
    pictures = DepthPictures(0)
    pictures(frame(0), IMAGE, {"rendered": np.ones((24, 80), np.float32)}, np.ones((24, 80)))
    made = report()
    pictures.put_into(made)
    assert [one.title for one in made.figures] == ["Depth distributions"]
    assert not [name for name in made.attachments if name.startswith("pictured")]


class Everywhere:
    """Calls the nearer half occupied."""

    name, kind, unit, note = "half", "measured", "density", ""
    asked = 0

    def missing(self, key: Any) -> str | None:
        return None

    def occupancy(self, batch: Any, points: Any) -> Any:
        self.asked += 1
        return (points[:, 2] < 12).float().expand(len(batch.keys), -1)


class Source:
    """One image, of a camera that sees all of the volume."""

    size = (24, 80)
    manifest = SimpleNamespace(frame_ids=lambda sequence: np.arange(1000))

    def read_images(self, keys: Any, out: Any) -> None:
        out[:] = 0

    def intrinsics(self, key: Any) -> Any:
        return np.array([[0.1, 0, 0], [0, 0.1, 0], [0, 0, 1]], np.float32)

    def maps(self, keys: Any, device: Any) -> dict[str, Any]:
        return {}


def test_occupancy_reports_ask_for_cubes_of_pictured_frames_alone() -> None:
    import torch

    predictor = Everywhere()
    pictures = OccupancyPictures([predictor], {"half": 0.5}, 2)  # type: ignore[list-item]
    truth = SimpleNamespace(occupied=np.zeros((160, 80), bool), visible=np.ones((160, 80), bool))
    values = np.zeros((160, 80), np.float32)
    values[80:] = 0.6
    keep, asked = Chain(None, pictures), []
    for number in range(40):
        if keep.wants(frame(number)):
            asked.append(number)
            keep(frame(number), IMAGE, {"half": values}, truth)
    assert asked == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32]  # every, every second, fourth, eighth
    made = report()
    pictures.put_into(made, Source(), torch.device("cpu"))  # type: ignore[arg-type]
    assert predictor.asked == 2
    assert [one.title for one in made.figures][-1] == "Occupancy, compared"
    kept = [name for name in made.attachments if name.startswith("pictured/")]
    assert len(kept) == 2
    for _, one in pictures._chosen.picked():
        np.testing.assert_array_equal(one.slices["half"], values > 0.5)
        volume = one.volumes["half"]
        assert volume[:, :20].all()
        assert not volume[:, 60:].any()


def test_reports_stand_side_by_side_on_the_frames_they_share(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", [full(1), full(2)]), write(tmp_path / "b", [full(2), full(3)])
    figures = compared({"A": first, "B": second})
    assert [one.title for one in figures] == [
        "Occupancy, compared", "Occupancy from above, compared", "Depth, compared",
    ]  # fmt: skip
    one_report = compared({"A": first})
    assert one_report[0].image.shape[0] > figures[0].image.shape[0]  # two frames, not one
    assert compared({"A": first, "C": tmp_path / "empty"}) == []
    assert nothing_shared({"A": first, "B": second}) == nothing_shared({"C": tmp_path / "empty"}) == ""
    assert "--picture" in nothing_shared({"A": first, "D": write(tmp_path / "d", [full(4)])})


def test_the_depth_that_is_shown_is_the_branch_s() -> None:
    assert drawing.shown_depth({"prior": 0, "rendered": 0, "branch": 0}) == "branch"
    assert drawing.shown_depth({"prior": 0, "rendered": 0}) == "rendered"
    assert drawing.shown_depth({"theirs": 0}) == "theirs"
    assert drawing.shown_depth({}) is None


def test_the_gallery_says_what_is_missing() -> None:
    scene = drawing.scene(full(1))
    held = files(
        [Place(1, "reconstruction", [scene]), Place(5, "distributions", missing="run `vipocc eval depth`")], "T"
    )
    assert sorted(held) == ["figure-01.png", "index.html"]
    page = held["index.html"]
    assert isinstance(page, str)
    assert "run `vipocc eval depth`" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<img") == 1
