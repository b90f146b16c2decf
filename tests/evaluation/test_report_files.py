from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from made_reports import FRAMES, METRICS, made_report

from vipocc.cli import LazyGroup
from vipocc.errors import DataError, MissingInputError, StoreError
from vipocc.evaluation.report import COLUMNS, Figure, Frame, Report, Row, Skipped, column, read_report
from vipocc.evaluation.report.frames import main_metric, worst_and_best
from vipocc.evaluation.report.provenance import command_line, git_state
from vipocc.evaluation.report.selection import selection


def test_a_folder_has_all_files_and_its_name_sorts(tmp_path: Path) -> None:
    folders = [made_report().save(tmp_path) for _ in range(3)]
    assert folders == sorted(folders)
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name for folder in folders]
    assert {path.name for path in folders[0].iterdir()} == {"report.json", "table.md", "report.html", "config.yaml"}
    assert yaml.safe_load((folders[0] / "config.yaml").read_text()) == {"data": {"sweeps": 300}, "preset": "vipocc"}
    assert re.fullmatch(r"\d{8}-\d{6}-occupancy-slice-300-test(-\d{3})?", folders[0].name)


def test_the_same_inputs_give_the_same_bytes_but_for_created(tmp_path: Path) -> None:
    first, second = (json.loads((made_report().save(tmp_path) / "report.json").read_text()) for _ in range(2))
    assert {"time", "command", "folder", "versions", "machine", "git"} == set(first.pop("created"))
    second.pop("created")
    assert json.dumps(first) == json.dumps(second)


def test_what_is_printed_is_what_is_written(tmp_path: Path) -> None:
    report = made_report()
    folder = report.save(tmp_path)
    assert json.loads((folder / "report.json").read_text()) == report.as_dict()
    assert (folder / "table.md").read_text() == report.markdown()
    assert (folder / "report.html").read_text() == report.html()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\).*make room"):
        made_report().save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_report_is_read_back_whole(tmp_path: Path) -> None:
    report = made_report()
    lacking = {**report.rows[0].per_frame[3][1], "ie_acc": math.nan}
    pairs = [(frame, lacking if at == 3 else values) for at, (frame, values) in enumerate(report.rows[0].per_frame)]
    report.rows[0] = replace(report.rows[0], per_frame=pairs, skipped=[Skipped(FRAMES[0], "no finite prediction")])
    folder = report.save(tmp_path)
    for place in (folder, folder / "report.json"):
        read = read_report(place)
        assert math.isnan(read.rows[0].per_frame[3][1]["ie_acc"])
        read.configuration = report.configuration  # lies beside the report
        assert read.as_dict() == report.as_dict()
        assert read.markdown() == report.markdown()


def damaged(change: Callable[[dict[str, Any]], Any]) -> str:
    values = json.loads(json.dumps(made_report().as_dict()))
    changed = change(values)
    return json.dumps(values if changed is None else changed)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "cannot be read"),
        ("[1]", "names no format_version"),
        ('{"loss": 3}', "names no format_version"),
        (damaged(lambda values: {**values, "format_version": 1}), "of format 1, and this vipocc reads format"),
        (damaged(lambda values: {**values, "format_version": 99}), "of format 99"),
        (damaged(lambda values: values.pop("rows") and None), r"damaged \(rows: field required"),
        (damaged(lambda values: values["rows"][0]["metrics"]["o_acc"].update(mean="x")), r"rows.0.metrics.o_acc.mean"),
        (damaged(lambda values: values["rows"][0].update(kind="guessed")), "unknown kind 'guessed'"),
        (damaged(lambda values: values.update(kind="weather")), "'weather'"),
        (damaged(lambda values: values["frames"].update(used=3)), "names 3 frames and lists 40"),
        (
            damaged(lambda values: values["frames"].update(used=39, list=values["frames"]["list"][1:])),
            "of 1 frames that",
        ),
    ],
)
def test_what_is_no_report_is_one_error(text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError, match=what) as caught:
        read_report(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_report_names_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="vipocc eval"):
        read_report(tmp_path / "nothing")


def test_the_page_needs_nothing_beside_it_and_says_everything(tmp_path: Path) -> None:
    report = made_report()
    picture = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    worst = worst_and_best(report)[0][0]
    report.figures = [Figure("Slice", "from above", picture, worst), Figure("Drawing", "a line", "<svg></svg>")]
    report.rows[0] = replace(report.rows[0], note="<b>bold</b>", skipped=[Skipped(FRAMES[5], "no finite prediction")])
    text = report.html()
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "@import" not in text
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    for said in (
        "digest of slice-300", report.truth_digest, "Rings of distance", "no visible cell", "no finite prediction",
        "KYN", "validation never chose the numbers of split test", "Worst by IE_acc", "from above", "config.yaml",
    ):  # fmt: skip
        assert said in text, said
    anchors = set(re.findall(r'id="([^"]+)"', text))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= anchors
    assert f"frame-{worst.sequence}-{worst.camera}-{worst.row}" in anchors
    assert len(re.findall(r'id="([^"]+)"', text)) == len(anchors)


def test_a_page_stays_small(tmp_path: Path) -> None:
    report = made_report()
    noise = np.random.default_rng(0).integers(0, 255, 900_000, dtype=np.uint8).tobytes()
    report.figures = [Figure(f"{number}", "", b"\x89PNG" + noise) for number in range(8)]
    text = report.html()
    assert len(text) < 5_000_000
    assert "5 more figures are left out" in text


def test_frames_are_ranked_by_a_metric_that_tells_them_apart() -> None:
    report = made_report()
    assert main_metric(report) == "ie_acc"
    worst, best = worst_and_best(report, 5)
    values = {frame: one["ie_acc"] for frame, one in report.rows[0].per_frame}
    ordered = sorted(values, key=lambda frame: values[frame])
    assert (worst, best) == (ordered[:5], ordered[-5:][::-1])
    report.rows[0] = Row.measured("trained", "measured", FRAMES, [dict.fromkeys(METRICS, 0.5)] * 40, 10, 0.95)
    assert main_metric(report) is None
    assert worst_and_best(report) == ([], [])
    errors = [{"abs_rel": float(frame.row)} for frame in FRAMES]
    depth = replace(report, metrics=("abs_rel",), rows=[Row.measured("rendered", "measured", FRAMES, errors, 10, 0.95)])
    assert worst_and_best(depth, 1) == ([FRAMES[-1]], [FRAMES[0]])


@pytest.mark.parametrize(
    ("split", "checkpoint", "said", "warned"),
    [
        ("test", {}, "validation never chose the numbers of split test", False),
        ("test", {"shared_with_val": 3}, "3 of the evaluated frames are validation frames", True),
        ("test", {"shared_with_train": 2}, "2 of the evaluated frames are in split train", True),
        ("test", {"named": True}, "which frames chose it is not known", False),
        ("val", {}, "figures on val flatter it", True),
        ("train", {}, "these figures flatter it", True),
    ],
)
def test_what_chose_the_numbers_is_said(split: str, checkpoint: dict[str, Any], said: str, warned: bool) -> None:
    report = made_report()
    report.split, report.checkpoint = split, {**(report.checkpoint or {}), **checkpoint}
    text, warn = selection(report)
    assert said in text
    assert warn is warned
    assert ('class="warning"' in report.html()) is warned
    report.checkpoint = None
    assert selection(report) == ("No trained checkpoint was chosen for this report.", False)


def test_columns_know_their_way_and_their_best() -> None:
    assert column("abs_rel").best([0.2, 0.1, math.nan]) == 0.1
    assert column("a1").best([0.2, 0.1]) == 0.2
    assert math.isnan(column("a1").best([0.2]))
    assert math.isnan(column("covered").best([0.2, 0.1]))
    assert (column("rmse").heading, column("unheard_of").heading) == ("RMSE (m) ↓", "unheard_of")
    assert column("a1").text(0.9, 2) == "0.90"
    assert all(known.title and known.meaning for known in COLUMNS.values())


def test_the_command_is_what_was_typed() -> None:
    seen = []

    class Group(LazyGroup):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return click.Command(
                cmd_name, params=[click.Option(["--text"])], callback=lambda text: seen.append(command_line())
            )

    assert command_line() is None
    CliRunner().invoke(Group("vipocc"), ["eval", "--text", "a b"], catch_exceptions=False)
    assert seen == ["vipocc eval --text 'a b'"]


def test_git_state_is_of_a_checkout_alone(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    here = git_state(Path(Report.save.__code__.co_filename).parent)
    assert here is None or re.fullmatch(r"[0-9a-f]{40}", here["commit"])


def test_tables_show_published_digits_and_what_is_apart() -> None:
    table = made_report().markdown()
    assert "| KYN | 0.92† | 0.70† | 0.66† |" in table
    assert "† not to be compared" in table
    assert Frame("a", "b", 1, 2).name == "a/b frame 2"


def test_the_documented_keys_are_the_keys() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = page[page.index("### report.json") : page.index("## Comparing")]
    named = set(re.findall(r"`([a-z_.]+)`", table))
    report = made_report().as_dict()
    assert set(report) - {"frames"} <= named
    assert {f"frames.{key}" for key in report["frames"]} <= named
    assert set(report["rows"][0]) <= named
    assert set(report["checkpoint"]) <= named
    assert f"format {report['format_version']}" in table
