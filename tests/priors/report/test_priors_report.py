"""`vipocc priors report`: its figures against the stores, what it calls unusual, and that the page holds together."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from workspace_tree import command, successful

from vipocc.priors.report import tables
from vipocc.priors.report.outliers import find_outliers
from vipocc.priors.snog.figures import valid_rays
from vipocc.stores import ArraySpec, LocalExecutor, Store, StoreReader, StoreSpec, requests_for, run
from vipocc.workspace import Workspace

WORLD = [
    "data.world.train_drives=1", "data.world.train_frames=5", "data.world.val_frames=3", "data.world.test_frames=3",
    "data.world.scale=0.12", "data.world.lidar_points=2000", "data.world.antialias=false", "data.world.shadows=false",
    "data.fisheye=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("priors-report") / "ws"
    overrides = [part for text in WORLD for part in ("-o", text)]
    successful("init", "--dataset", "synthetic", "-C", str(folder), *overrides)
    successful("priors", "depth", "-C", str(folder))
    successful("data", "prepare", "--kinds", "lidar", "-C", str(folder))
    successful("priors", "sam", "-C", str(folder))
    return folder


def test_figures_are_those_of_the_stores(workspace: Path) -> None:
    told = json.loads(successful("priors", "report", "--json", "-C", str(workspace)).out)
    places = Workspace.open(workspace)
    depth, lidar = StoreReader(places.store("depth")), StoreReader(places.store("lidar"))
    medians, capped, ratios = [], [], []
    for group in depth.groups():
        for row in np.flatnonzero(depth.rows(group)):
            values = depth.read(group, int(row), "depth").astype(np.float64)
            medians.append(np.median(values))
            capped.append((values >= 0.99 * 80).mean())
            if lidar.has(group) and lidar.rows(group)[row]:
                beam = lidar.read(group, int(row), "depth").astype(np.float64)
                hit = np.isfinite(beam) & (beam > 1) & (beam < 80)
                ratios.append(np.median(values[hit] / beam[hit]))
    assert told["depth"]["frames"] == len(medians)
    assert told["depth"]["median_m"] == pytest.approx(np.mean(medians), rel=1e-3)
    assert told["depth"]["share_at_cap"] == pytest.approx(np.mean(capped), abs=1e-5)
    assert told["depth"]["frames_with_lidar"] == len(ratios) > 0
    assert told["depth"]["median_ratio_to_lidar"] == pytest.approx(np.median(ratios), rel=1e-3)
    instances = StoreReader(places.store("instances"))
    counts = [
        int(instances.read(g, int(r), "count")) for g in instances.groups() for r in np.flatnonzero(instances.rows(g))
    ]
    assert told["instances"]["per_frame"] == pytest.approx(np.mean(counts))
    assert sum(of["instances"] for of in told["instances"]["labels"].values()) == sum(counts)
    assert told["missing"] == {"depth": 0, "instances": 0, "anchors": 0}
    assert {store["fingerprint"]["source"] for store in told["stores"].values()} == {"simulated"}


def test_rays_on_critical_instances(workspace: Path) -> None:
    from vipocc.priors.anchors import read_instances

    places = Workspace.open(workspace)
    anchors, instances = StoreReader(places.store("anchors")), StoreReader(places.store("instances"))
    group = anchors.groups()[0]
    table = tables.anchors_table(places.store("anchors"), places.store("instances"), group, 8)
    for entry in table:
        row = int(entry["row"])
        rays, critical = valid_rays(
            anchors.read(group, row, "anchors")[0], read_instances(instances, group, row).critical_mask, 8
        )
        assert (entry["rays"], entry["psi"]) == (rays, pytest.approx(critical / rays))


class _Page(HTMLParser):
    """What a page refers to and what it names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {key: value or "" for key, value in attrs}
        if "id" in known:
            assert known["id"] not in self.names, f"{known['id']} stands twice"
            self.names.add(known["id"])
        if tag == "a":
            self.links.append(known["href"])
        self.sources += [known[key] for key in ("src", "href") if key in known and tag != "a"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_beside_it(workspace: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    said = successful("priors", "report", "--frames", "3", "--output", str(output), "-C", str(workspace)).out
    assert str(output) in said
    page = _Page()
    page.feed(output.read_text(encoding="utf-8"))
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.names for link in page.links)
    assert page.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert len([name for name in page.names if name.startswith("sheet-")]) == 3
    assert "Simulated from the synthetic world's exact truth" in page.text
    assert not re.search(r"https?://", output.read_text(encoding="utf-8"))


def test_without_priors_it_names_the_command(tmp_path: Path) -> None:
    successful("init", "--dataset", "synthetic", "-C", str(tmp_path))
    told = command("priors", "report", "-C", str(tmp_path))
    assert told.code == 2
    assert "run `vipocc priors depth`" in told.err


class _Depths:
    """Writes given depth maps, to put an odd frame into a store."""

    rows_per_call = 8

    def __init__(self, maps: np.ndarray) -> None:
        self.maps = maps

    def open(self, device: str) -> None:
        """Nothing to load."""

    def compute(self, unit: object, rows: list[int]) -> dict[str, np.ndarray]:
        return {"depth": self.maps[list(rows)]}

    def close(self) -> None:
        """Nothing to let go of."""


def test_odd_frames_are_found_over_several_shards(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    maps = rng.uniform(4.0, 40.0, (150, 12, 20)).astype(np.float16)
    maps[20] *= 4  # unlike its drive
    maps[70] = 9.0  # flat
    maps[101, :3] = np.nan
    maps[149] = 80.0  # at the cap, and flat
    spec = StoreSpec(
        "depth", (ArraySpec("depth", (12, 20), "float16", float("nan"), ("y", "x"), "m", "depth", "depth"),)
    )
    store = Store.create_or_open(tmp_path / "depth.zarr", spec, tmp_path)
    store.ensure_group("drive/left", np.arange(150))
    wanted = [row for row in range(150) if row != 64]
    run(
        store,
        requests_for("drive/left", wanted, {"model": "x"}, {row: [] for row in wanted}),
        _Depths(maps),
        LocalExecutor(),
    )
    table = tables.depth_table(store.path, "drive/left", 80.0)
    assert table["row"].tolist() == wanted
    np.testing.assert_allclose(
        table["median"], [np.nanmedian(maps[row].astype(np.float32)) for row in wanted], rtol=1e-6
    )
    assert table["histogram"].sum() == np.isfinite(maps[wanted]).sum()
    found = find_outliers({"drive/left": table}, {}, 254)
    reasons = {row: " ".join(one.reason for one in found if one.row == row) for row in {one.row for one in found}}
    assert set(reasons) == {20, 70, 101, 149}
    assert "unlike its drive's" in reasons[20]
    assert "flat" in reasons[70]
    assert "25.0 % of the depth is missing" in reasons[101]
    assert "at the cap" in reasons[149]
    assert found[0].row == 101


def test_a_full_record_is_unusual() -> None:
    table = np.zeros(3, tables.INSTANCES)
    table["row"], table["count"] = [0, 1, 2], [3, 254, 0]
    assert [(one.row, one.reason) for one in find_outliers({}, {"d/c": table}, 254)] == [
        (1, "254 instances, as many as fit")
    ]
