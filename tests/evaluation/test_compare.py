from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_reports import FRAMES, METRICS, made_report

from vipocc.cli import App, cli
from vipocc.errors import MissingInputError, UsageError
from vipocc.evaluation.compare import Comparison, compare, find_reports, paired_difference, show
from vipocc.evaluation.report import Frame, Report, Row


def comparison(tmp_path: Path, *reports: Report, **options: Any) -> Comparison:
    return compare(find_reports([str(one.save(tmp_path)) for one in reports], None), resamples=200, **options)


def test_a_paired_difference_is_its_definition() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.uniform(size=30), rng.uniform(size=30)
    a[4], b[7] = math.nan, math.nan
    found = paired_difference(a, b, resamples=300, confidence=0.9, seed=5)
    kept = [i for i in range(30) if i not in (4, 7)]
    draws = np.random.default_rng(5)
    means = []
    for _ in range(300):
        drawn = draws.integers(0, len(kept), len(kept))
        means.append(sum(a[kept[i]] - b[kept[i]] for i in drawn) / len(kept))
    assert found.frames == 28
    assert found.mean == pytest.approx(sum(a[i] - b[i] for i in kept) / 28)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])))
    below, above = sum(mean <= 0 for mean in means), sum(mean >= 0 for mean in means)
    assert found.p == pytest.approx(min(1.0, 2 * (min(below, above) + 1) / 301))


def test_the_ends_of_a_paired_difference() -> None:
    same = paired_difference(np.full(9, 0.3), np.full(9, 0.3))
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert same.verdict("o_acc") == "undecided"
    better = paired_difference(np.full(9, 0.4), np.full(9, 0.3), resamples=999)
    assert better.p == pytest.approx(2 / 1000)
    assert (better.verdict("o_acc"), better.verdict("abs_rel"), better.verdict("covered")) == ("better", "worse", "")
    nothing = paired_difference(np.array([math.nan]), np.array([1.0]))
    assert nothing.frames == 0
    assert math.isnan(nothing.mean)


def test_chance_is_called_undecided_about_as_often_as_said() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for seed in range(200):
        a, b = rng.normal(size=(2, 60))
        wrong += paired_difference(a, b, resamples=200, seed=seed).verdict("o_acc") != "undecided"
    assert 2 <= wrong <= 24  # 5 % of 200 and some: a bootstrap interval of 60 frames is a little narrow


def test_pairing_sees_what_intervals_of_means_cannot(tmp_path: Path) -> None:
    made = comparison(tmp_path, made_report(), made_report(0.02))
    mine, theirs = (line for line in made.lines if line.row.name == "trained")
    assert mine.row.metrics["o_acc"].high > theirs.row.metrics["o_acc"].low  # the intervals overlap
    assert theirs.against == "A trained"
    assert theirs.differences["o_acc"].mean == pytest.approx(0.02, abs=0.01)
    assert theirs.differences["o_acc"].verdict("o_acc") == "better"
    assert not mine.differences
    assert [line.name for line in made.lines if line.row.kind == "constant"] == ["A everything free"]


def test_only_shared_frames_count_and_the_others_are_counted(tmp_path: Path) -> None:
    first, second = made_report(frames=FRAMES[:30]), made_report(0.1, frames=FRAMES[10:])
    made = comparison(tmp_path, first, second)
    assert made.frames == 20
    assert [(run.used, run.shared) for run in made.runs] == [(30, 20), (30, 20)]
    by_frame = dict(first.rows[0].per_frame)
    expected = np.mean([by_frame[frame]["o_acc"] for frame in FRAMES[10:30]])
    assert made.lines[0].row.mean("o_acc") == pytest.approx(expected)
    assert {one.frames for line in made.lines for one in line.differences.values()} == {20}
    assert any("A has 30 frames, of which 10 are left out" in note for note in made.notes)
    ring = made.breakdowns["Rings of distance"]
    assert [(line.name, line.row.frames) for line in ring] == [("A 4-8 m: trained", 20), ("B 4-8 m: trained", 20)]
    assert ring[1].differences["o_acc"].frames == 20


def test_rows_meet_by_name_and_else_the_main_row(tmp_path: Path) -> None:
    made = comparison(
        tmp_path, made_report(names=("rendered", "branch")), made_report(0.1, names=("branch", "rendered", "pixelnerf"))
    )
    against = {line.name: line.against for line in made.lines if line.run}
    assert against == {
        "A rendered": "",
        "A branch": "",
        "A everything free": "",
        "B branch": "A branch",
        "B rendered": "A rendered",
        "B pixelnerf": "A rendered",
    }
    alone = comparison(tmp_path, made_report(names=("rendered", "branch")))
    assert {line.name: line.against for line in alone.lines if line.run}["A branch"] == "A rendered"


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (made_report(protocol="slice-24"), "another protocol (name slice-24, not slice-300)"),
        (made_report(truth=1), "another ground truth on 40 of 40 shared frames"),
        (replace(made_report(), split="val"), "split val, not test"),
        (replace(made_report(), dataset="synthetic"), "dataset synthetic, not kitti-360"),
        (replace(made_report(), truth_digest="x", truth_frames={}), "another ground truth (x, not "),
    ],
)
def test_different_measurements_are_refused_unless_told(other: Report, what: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        comparison(tmp_path, made_report(), other)
    assert what in str(caught.value)
    assert "--anyway" in str(caught.value)
    made = comparison(tmp_path, made_report(), other, anyway=True)
    line = next(line for line in made.lines if line.run == "B")
    assert what in line.row.note
    assert set(METRICS) <= set(line.row.apart)
    text = show.markdown(made)
    assert "B is another measurement than A" in text
    assert "better" not in text
    assert "undecided" not in text
    assert not any(line.startswith("| A trained | **") for line in text.splitlines())
    assert show.document(made)["comparable"] is False


def test_reports_of_different_kinds_or_without_a_shared_frame_are_refused(tmp_path: Path) -> None:
    depth = replace(made_report(), kind="depth")
    with pytest.raises(UsageError, match="B is about depth and A about occupancy"):
        comparison(tmp_path, made_report(), depth, anyway=True)
    halves = made_report(frames=FRAMES[:20]), replace(made_report(frames=FRAMES[20:]), truth_digest="")
    halves[0].truth_digest = ""
    with pytest.raises(UsageError, match="share no frame"):
        comparison(tmp_path, *halves)
    made = comparison(tmp_path, *halves, anyway=True)
    assert made.frames == 0
    assert not any(line.differences for line in made.lines)
    assert "nothing is paired" in show.markdown(made)


def test_rows_that_are_no_means_over_frames_stand_as_they_are(tmp_path: Path) -> None:
    def speed() -> Report:
        row = Row("vipocc", "measured", {"depth_fps": made_report().rows[0].metrics["o_acc"]})
        return replace(made_report(), kind="speed", metrics=("depth_fps",), rows=[row], breakdowns={}, truth_frames={})

    made = comparison(tmp_path, speed(), speed(), published=["table-9"])
    assert made.frames == 0
    assert [line.name for line in made.lines] == ["A vipocc", "B vipocc", "BTS", "KYN", "ViPOcc"]
    assert "not comparable, by another protocol" in made.lines[-1].row.note


def test_what_cannot_be_brought_to_the_shared_frames_is_apart(tmp_path: Path) -> None:
    def pooled(frames: Sequence[Frame]) -> Report:
        report = made_report(frames=frames)
        return replace(report, breakdowns={"Pooled": [replace(report.rows[0], per_frame=())]})

    made = comparison(tmp_path, pooled(FRAMES), pooled(FRAMES[:10]))
    mine, theirs = made.breakdowns["Pooled"]
    assert (mine.row.note, set(mine.row.apart)) == ("over 40 frames of its own", set(METRICS))
    assert (theirs.row.note, theirs.row.apart) == ("", ())
    assert any("10 frames are too few" in note for note in made.notes)
    alike = comparison(tmp_path, pooled(FRAMES), pooled(FRAMES))
    assert not any(line.row.apart for line in alike.breakdowns["Pooled"])
    assert not any("too few" in note for note in alike.notes)


def test_the_best_is_bold_and_published_rows_say_what_they_are(tmp_path: Path) -> None:
    made = comparison(tmp_path, made_report(), made_report(0.1), published=["table-1", "table-5"])
    text = show.markdown(made)
    bold = [line for line in text.splitlines() if line.startswith("| B trained | **")]
    assert bold[0].count("**") == 6
    assert "| Full implementation | 0.93† | 0.71† | 0.69† |" in text
    assert "over 446 frames" in text
    assert "KYN" not in show.markdown(comparison(tmp_path, made_report(), made_report(0.1)))
    page = show.page(made).html()
    assert "minus that of A trained; higher is better" in page
    assert "http" not in page.replace('xmlns="http', "")
    with pytest.raises(UsageError, match="no published table"):
        comparison(tmp_path, made_report(), published=["table-8"])


def test_reports_are_found_by_name_glob_and_folder(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    first, second = made_report().save(reports), made_report().save(reports)
    (reports / "compare-1").mkdir()
    assert [one.folder for one in find_reports(["*"], reports)] == [first, second]
    assert [one.name for one in find_reports(["*"], reports)] == ["A", "B"]
    found = find_reports([f"old={first.name}", str(second / "report.json"), first.name], reports)
    assert [(one.name, one.folder) for one in found] == [("old", first), ("B", second)]
    with pytest.raises(MissingInputError, match=rf"no report 'nothing\*'.*{second.name}"):
        find_reports(["nothing*"], reports)
    for texts, what in (
        ((f"x={first.name}", f"x={second.name}"), "two reports are called 'x'"),
        (("x=*",), "names 2 reports"),
        (("=*",), "is not NAME=REPORT"),
    ):
        with pytest.raises(UsageError, match=what):
            find_reports(texts, reports)
    many = [made_report().save(tmp_path / "many").name for _ in range(28)]
    assert [one.name for one in find_reports(many, tmp_path / "many")][25:] == ["Z", "AA", "AB"]


def typed(*words: str) -> Result:
    return CliRunner().invoke(cli, ["eval", "compare", *words], obj=App())


def test_the_command_writes_and_prints_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for shift in (0.0, 0.05):
        made_report(shift).save(tmp_path / "made")
    result = typed("made/*", "--output", "out", "--json")
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "out").iterdir()
    assert {path.name for path in folder.iterdir()} == {"compare.json", "compare.md", "compare.html"}
    assert result.stdout == (folder / "compare.json").read_text()
    told = json.loads(result.stdout)
    assert told["rows"][2]["differences"]["o_acc"]["verdict"] == "better"
    assert told["metrics"]["o_acc"] == {"title": "O_acc", "better": "higher", "unit": ""}
    assert (folder / "compare.md").read_text().strip() in typed("made/*", "--output", "out").stdout
    assert "--output" in str(typed("made/*").exception)
    assert "there is no report 'nothing'" in str(typed("nothing", "--output", "out").exception)
