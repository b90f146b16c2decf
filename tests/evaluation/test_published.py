from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from vipocc.errors import UsageError
from vipocc.evaluation.published import TABLES, published_table, rows_beside
from vipocc.evaluation.report import COLUMNS

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
PAPER = [name for name in TABLES if name.startswith("table-")]


def needed(name: str) -> str:
    path = REFERENCE / name
    if not path.is_file():
        pytest.skip("the reference is not beside this clone")
    return path.read_text(encoding="utf-8")


def printed_rows(text: str, number: int) -> list[list[float]]:
    """The numbers of each line of a table of paper.md, whose caption stands below it."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"Table {number}. "))
    while "\t" not in lines[at]:
        at -= 1
    rows = []
    while "\t" in lines[at]:
        cells = [cell.strip() for cell in lines[at].split("\t")]
        numbers = [math.nan if cell == "N/A" else float(cell) for cell in cells if re.fullmatch(r"N/A|\d+\.\d+", cell)]
        if numbers:
            rows.append(numbers)
        at -= 1
    return rows[::-1]


@pytest.mark.parametrize("name", PAPER)
def test_every_number_is_that_of_the_paper(name: str) -> None:
    table = TABLES[name]
    printed = printed_rows(needed("paper.md"), int(name.removeprefix("table-")))
    if name == "table-10":  # in thousands and per cent
        printed = [[1000 * n, share / 100] for n, share in printed]
    if name == "table-11":  # a line is a sampler, its columns are BTS and KYN
        without, with_snog = printed
        printed = [without[:3], with_snog[:3], without[3:], with_snog[3:]]
    assert len(printed) == len(table.rows)
    for ours, theirs in zip(table.rows.values(), printed, strict=True):
        assert ours == pytest.approx(theirs, nan_ok=True)


def test_the_released_numbers_are_those_of_the_published_system() -> None:
    text = needed("published_system.md")
    lines = text[text.index("### 7.8") : text.index("## 8.")].splitlines()

    def numbers(start: str) -> list[float]:
        line = next(line for line in lines if line.startswith(f"| {start}"))
        return [float(number) for number in re.findall(r"(?<![\d-])\d*\.\d+", line)]

    for row, start in (("ViPOcc, official weights", "ViPOcc occupancy"), ("BTS, official weights", "BTS weights")):
        scene, objects = (TABLES[name].rows[row] for name in ("released-scene", "released-objects"))
        assert [*scene, *objects] == numbers(start)
    depth = TABLES["released-depth"].rows
    assert list(depth["ViPOcc rendered, official weights"]) == numbers("ViPOcc rendered")
    assert list(depth["ViPOcc branch, official weights"]) == numbers("ViPOcc branch")
    assert list(depth["BTS, official weights"]) == numbers("BTS depth")
    median, none = (depth[f"Pseudo depth ({name} scaling), released"] for name in ("median", "no"))
    assert [*median, *none] == numbers("pseudo depth")


def test_tables_are_whole() -> None:
    assert [f"table-{number}" for number in (1, 2, 3, 4, 5, 6, 9, 10, 11)] == PAPER
    for table in TABLES.values():
        assert set(table.metrics) <= COLUMNS.keys(), table.name
        assert all(len(row) == len(table.metrics) for row in table.rows.values()), table.name
        assert table.source
        assert table.protocol
    with pytest.raises(UsageError, match=r"no published table 'table-7'.*table-1, "):
        published_table("table-7")


def protocol(name: str, **more: str) -> dict[str, str]:
    return {"name": name, "digest": "d", **more}


def test_what_may_be_compared_says_so_and_nothing_else() -> None:
    rows = rows_beside("occupancy", "kitti-360", "test", protocol("slice-300-published"), 446)
    assert [row.name for row in rows][:6] == ["Monodepth2", "Monodepth2 + 4m", "PixelNeRF", "BTS", "KYN", "ViPOcc"]
    assert not any(row.apart or "not comparable" in row.note for row in rows)
    kyn = rows[4]
    assert (kyn.mean("o_acc"), kyn.mean("object_ie_rec"), kyn.kind, kyn.digits) == (0.92, 0.61, "published", 2)

    built_anew = rows_beside("occupancy", "kitti-360", "test", protocol("slice-300"), 446)[4]
    assert "comparable, but its ground truth" in built_anew.note
    assert set(built_anew.apart) == {"object_o_acc", "object_ie_acc", "object_ie_rec"}

    for report, why in (
        (("synthetic", "test", protocol("slice-300"), 446), "of kitti-360"),
        (("kitti-360", "val", protocol("slice-300"), 446), "of split test"),
        (("kitti-360", "test", protocol("slice-300"), 10), "over 446 frames"),
        (("kitti-360", "test", protocol("exact"), 446), "by another protocol"),
    ):
        for row in rows_beside("occupancy", *report):
            assert f"not comparable, {why}" in row.note
            assert set(row.metrics) == set(row.apart)


def test_each_dataset_has_its_table() -> None:
    def names(kind: str, dataset: str, named: str = "lidar", scaling: str = "none", frames: int = 446) -> list[str]:
        rows = rows_beside(kind, dataset, "test", protocol(named, scaling=scaling), frames)  # type: ignore[arg-type]
        return [row.name for row in rows if "Table" in row.note]

    assert len(names("depth", "kitti-raw")) == 8
    assert names("depth", "ddad") == ["BTS", "KYN", "ViPOcc"]
    assert len(names("depth", "kitti-360")) == 5
    assert names("speed", "kitti-360") == ["BTS", "KYN", "ViPOcc"]
    assert all("Pseudo" in name for name in names("priors", "kitti-360"))
    scaled = rows_beside("depth", "kitti-360", "test", protocol("lidar", scaling="median"), 446)
    assert all("with none scaling" in row.note for row in scaled)
