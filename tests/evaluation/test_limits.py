"""`--fail-under` and `--fail-over`: which limits are taken, and when a report breaks them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from vipocc import cli
from vipocc.errors import UsageError
from vipocc.evaluation.limits import Limit, breaches, parse_limit
from vipocc.evaluation.metrics import DEPTH
from vipocc.evaluation.report import Frame, Report, Row
from vipocc.workspace import Workspace

FRAME = Frame("drive", "image_00", 3, 7)


def report() -> Report:
    rows = [
        Row.measured("rendered", "measured", [FRAME], [{"abs_rel": 0.25, "a1": 0.5}], 10, 0.95),
        Row.measured("branch", "measured", [FRAME], [{"abs_rel": 0.125, "a1": math.nan}], 10, 0.95),
        Row.measured("prior", "prior", [FRAME], [{"abs_rel": 0.75, "a1": 0.1}], 10, 0.95),
        Row.published("ViPOcc", {"abs_rel": 0.1, "a1": 0.9}, "published"),
    ]
    protocol = {"name": "lidar", "digest": "0"}
    return Report("depth", "synthetic", "test", protocol, ("abs_rel", "a1"), rows, [FRAME])


@pytest.mark.parametrize(
    ("text", "side", "limit"),
    [
        ("a1=.8", "under", Limit("under", "a1", 0.8)),
        ("abs_rel=1e-1", "over", Limit("over", "abs_rel", 0.1)),
        ("my method=2:abs_rel=0.1", "over", Limit("over", "abs_rel", 0.1, "my method=2")),
        ("a:b:a1=0.1", "under", Limit("under", "a1", 0.1, "a:b")),
    ],
)
def test_what_is_typed(text: str, side: str, limit: Limit) -> None:
    assert parse_limit(text, side, DEPTH) == limit  # type: ignore[arg-type]
    assert parse_limit(limit.option.split(" ", 1)[1], limit.side, DEPTH) == limit


@pytest.mark.parametrize(
    ("text", "side", "said"),
    [
        ("abs_rel=0.1", "under", "use --fail-over abs_rel=0.1"),
        ("a1=0.1", "over", "use --fail-under a1=0.1"),
        ("absrel=0.1", "over", "use abs_rel"),
        ("o_acc=0.1", "under", "use one of abs_rel"),
        ("a1", "under", "METRIC=VALUE"),
        ("a1=", "under", "METRIC=VALUE"),
        ("a1=nan", "under", "METRIC=VALUE"),
        ("a1=high", "under", "METRIC=VALUE"),
        (":a1=0.5", "under", "METRIC=VALUE"),
        ("=0.5", "under", "METRIC=VALUE"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, side: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_limit(text, side, DEPTH)  # type: ignore[arg-type]


def test_each_measured_row_is_judged_unless_one_is_named() -> None:
    assert breaches(report(), [Limit("over", "abs_rel", 0.25)]) == []
    assert breaches(report(), [Limit("over", "abs_rel", 0.2)]) == ["rendered has abs_rel 0.2500, over 0.2"]
    assert breaches(report(), [Limit("over", "abs_rel", 0.2, "branch")]) == []
    assert breaches(report(), [Limit("over", "abs_rel", 0.2, "prior")]) == ["prior has abs_rel 0.7500, over 0.2"]
    both = breaches(report(), [Limit("under", "a1", 0.5), Limit("over", "abs_rel", 0.1, "branch")])
    assert both == ["branch has no a1, of which 0.5 was asked", "branch has abs_rel 0.1250, over 0.1"]


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (Limit("over", "abs_rel", 0.2, "ViPOcc"), "no row 'ViPOcc' that was measured here; use one of rendered"),
        (Limit("over", "abs_rel", 0.2, "brunch"), "no row 'brunch'"),
        (Limit("over", "rmse", 0.2), "the report has no rmse"),
    ],
)
def test_what_the_report_lacks_is_a_mistake_and_not_a_pass(limit: Limit, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        breaches(report(), [limit])


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        (["occupancy", "--fail-under", "o_ac=0.5"], "use o_acc"),
        (["depth", "--fail-under", "abs_rel=0.5"], "use --fail-over abs_rel=0.5"),
        (["sampler", "--fail-over", "psi_v=0.5"], "use --fail-under psi_v=0.5"),
    ],
)
def test_mistakes_are_told_before_anything_else(
    tmp_path: Path, arguments: list[str], way_out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Workspace.create(tmp_path / "ws", "synthetic")
    assert cli.run(["eval", *arguments, "-C", str(tmp_path / "ws")]) == 2
    said = capsys.readouterr()
    assert way_out in said.err
    assert said.out == ""
