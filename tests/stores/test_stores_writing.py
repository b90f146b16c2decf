from __future__ import annotations

import errno
import os
import pickle
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from stores_helpers import GROUP, SHAPE, Computer, batch, check_values, computed, requests, shards, spec

from vipocc.errors import DataError, MissingInputError, StoreError, UsageError
from vipocc.stores import (
    ArraySpec,
    Request,
    Store,
    StoreReader,
    StoreSpec,
    Unit,
    file_ref,
    parse_shard,
    plan,
    requests_for,
    row_refs,
    run,
    select,
    verify,
)
from vipocc.stores.commit import commit
from vipocc.stores.layout import decode_shard, encode_shard, shard_path

NewStore = Callable[..., Store]


def test_a_store_reads_with_plain_zarr(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    summary = run(store, requests(range(100)), Computer(tmp_path / "log"))
    assert (summary.units, summary.rows, summary.held) == (2, 100, 0)
    check_values(store, range(100))
    root = zarr.open_group(str(store.path), mode="r")
    assert root.attrs["dataset"] == "synthetic"
    assert root.attrs["format_version"] == 1
    group = root[GROUP]
    np.testing.assert_array_equal(group["frame_id"][:], np.arange(100) * 3)
    depth = group["depth"]
    assert depth.shape == (100, *SHAPE)
    assert (depth.chunks, depth.shards) == ((1, *SHAPE), (64, *SHAPE))
    assert depth.metadata.dimension_names == ("frame", "height", "width")
    assert depth.attrs["units"] == "m"
    assert np.isnan(depth.fill_value)
    assert group.metadata.consolidated_metadata is None
    assert {p.name for p in store.path.iterdir()} == {"zarr.json", "drive"}
    assert not list(tmp_path.glob("**/*.partial")) + list(tmp_path.glob("**/*.lock"))


def test_rows_are_added_one_shard_at_a_time_and_only_those_missing(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(), tmp_path / "log"
    run(store, requests([3, 5, 90]), Computer(log))
    reader = StoreReader(store.path)
    before = {row: reader.row_digest(GROUP, row) for row in (3, 5, 90)}
    untouched = shards(store)[f"{GROUP}/depth/c/1/0/0"]
    run(store, requests([3, 4, 5, 6, 7]), Computer(log))
    assert computed(log) == [3, 5, 90, 4, 6, 7]
    check_values(store, [3, 4, 5, 6, 7, 90])
    reader.refresh()
    assert list(np.flatnonzero(reader.rows(GROUP))) == [3, 4, 5, 6, 7, 90]
    assert {row: reader.row_digest(GROUP, row) for row in (3, 5, 90)} == before
    assert shards(store)[f"{GROUP}/depth/c/1/0/0"] == untouched
    once = new_store("once")
    run(once, requests([3, 4, 5, 6, 7, 90]), Computer(tmp_path / "other"))
    assert shards(once) == shards(store)


def test_a_second_run_does_nothing_and_is_quick(tmp_path: Path) -> None:
    tiny = StoreSpec("count", (ArraySpec("count", (), "uint16", 0, (), "1"),))
    store = Store.create_or_open(tmp_path / "count.zarr", tiny, tmp_path)
    n = 64 * 25
    store.ensure_group(GROUP, np.arange(n))
    inputs = {row: [{"path": f"images/{row:010d}.png", "size": 1, "mtime_ns": row}] for row in range(n)}
    wanted = requests_for(GROUP, range(n), {"model": "tiny"}, inputs)
    for request in wanted:
        counts = {"count": np.asarray(request.rows, np.uint16)}
        commit(store, request, request.rows, counts, request.inputs, None)
    store.adopt(GROUP, {"model": "tiny"})
    tree = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}

    class Never:
        def open(self, device: str) -> None:
            raise AssertionError

        compute = close = open

    started = time.perf_counter()
    again = Store.create_or_open(tmp_path / "count.zarr", tiny, tmp_path)
    again.ensure_group(GROUP, np.arange(n))
    summary = run(again, wanted, Never())  # type: ignore[arg-type]
    assert (summary.rows, summary.held) == (0, n)
    assert time.perf_counter() - started < 2.0
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == tree
    started = time.perf_counter()
    assert StoreReader(store.path).rows(GROUP).all()
    assert time.perf_counter() - started < 2.0


def test_an_all_zero_row_is_not_a_missing_one(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(), tmp_path / "log"
    run(store, requests([7]), Computer(log))
    run(store, requests([7]), Computer(log))
    assert computed(log) == [7]
    reader = StoreReader(store.path, fix="run `vipocc priors depth`")
    assert not reader.read(GROUP, 7, "image").any()
    with pytest.raises(
        MissingInputError, match=r"'depth' does not hold row 8 of 'drive/image_00'.*vipocc priors depth"
    ):
        reader.read(GROUP, 8, "image")
    with pytest.raises(MissingInputError, match="row 100"):
        reader.read_many(GROUP, [7, 100], "count")
    with pytest.raises(MissingInputError, match="row -1"):
        reader.read(GROUP, -1, "count")


def test_changed_inputs_are_made_again_row_by_row(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(), tmp_path / "log"
    files = [tmp_path / f"{row}.png" for row in range(4)]
    for file in files:
        file.write_bytes(b"image")

    def wanted() -> list[Request]:
        inputs = {row: [file_ref(file, tmp_path)] for row, file in enumerate(files)}
        return requests_for(GROUP, range(4), {"model": "tiny", "revision": "1"}, inputs)

    run(store, wanted(), Computer(log))
    record = store.record(Unit(GROUP, 0))
    assert record is not None
    assert record["rows"][2]["inputs"][0]["path"] == "2.png"
    assert len(record["rows"][2]["inputs"][0]["digest"]) == 32
    os.utime(files[2], ns=(1, 1))
    assert plan(store, wanted()).todo[0].missing == (2,)
    run(store, wanted(), Computer(log))
    assert computed(log) == [0, 1, 2, 3, 2]
    os.utime(files[1], ns=(5, 5))
    stale = wanted()
    os.utime(files[1], ns=(6, 6))
    with pytest.raises(DataError, match=r"changed while.*1\.png"):
        run(store, stale, Computer(log))
    files[1].unlink()
    with pytest.raises(DataError, match=r"cannot be read.*1\.png"):
        run(store, stale, Computer(log))


def test_rows_of_another_store_count_by_their_content(new_store: NewStore, tmp_path: Path) -> None:
    upstream, store, log = new_store("frames"), new_store(), tmp_path / "log"

    def wanted(rows: list[int]) -> list[Request]:
        refs = row_refs(StoreReader(upstream.path), GROUP, rows)
        return requests_for(GROUP, rows, {"model": "tiny"}, {row: [ref] for row, ref in refs.items()})

    run(upstream, requests([1, 2]), Computer(tmp_path / "upstream"))
    run(store, wanted([1, 2]), Computer(log))
    run(upstream, requests([1, 2, 3, 4]), Computer(tmp_path / "upstream"))
    run(store, wanted([1, 2, 3]), Computer(log))
    assert computed(log) == [1, 2, 3], "extending the upstream shard invalidates no row"
    run(upstream, requests([1, 2, 3, 4], revision="2"), Computer(tmp_path / "upstream", salt=1), overwrite=True)
    run(store, wanted([1, 2, 3]), Computer(log))
    assert computed(log) == [1, 2, 3, 1, 2, 3]
    with pytest.raises(MissingInputError, match="row 50"):
        row_refs(StoreReader(upstream.path), GROUP, [50])


def test_two_models_never_mix(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(), tmp_path / "log"
    run(store, requests(range(100)), Computer(log))
    tree = shards(store)
    other = requests([1, 80], revision="2")
    for act in (lambda: plan(store, other), lambda: run(store, other, Computer(log, salt=2))):
        with pytest.raises(StoreError, match=r'made with revision "1", not "2".*--store NAME.*--overwrite'):
            act()
    # Rows that no unit holds yet are refused as well.
    fresh = new_store("fresh")
    run(fresh, requests([1]), Computer(log))
    with pytest.raises(StoreError, match="--store NAME"):
        plan(fresh, requests([80], revision="2"))
    assert shards(store) == tree
    assert plan(store, other, overwrite=True).missing == 2
    run(store, other, Computer(log, salt=2), overwrite=True)
    reader = StoreReader(store.path)
    assert list(np.flatnonzero(reader.rows(GROUP))) == [1, 80]
    check_values(store, [1, 80], salt=2)
    assert reader.fingerprint(GROUP) == {"model": "tiny", "revision": "2"}


def test_a_store_without_rows_is_given_over(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    with pytest.raises(DataError):
        run(store, requests([1]), Computer(tmp_path / "log", bad_row=1))
    run(store, requests([1], revision="2"), Computer(tmp_path / "log"))
    check_values(store, [1])


def test_fingerprints_by_group(tmp_path: Path) -> None:
    made = StoreSpec("occupancy", (ArraySpec("n", (), "uint8", 0, (), "1"),), fingerprint_scope="group")
    store = Store.create_or_open(tmp_path / "occupancy.zarr", made)

    class Ones:
        def open(self, device: str) -> None: ...

        def close(self) -> None: ...

        def compute(self, unit: Unit, rows: tuple[int, ...]) -> dict[str, np.ndarray]:
            return {"n": np.ones(len(rows), np.uint8)}

    for protocol in ("slice-300", "exact"):
        store.ensure_group(f"{protocol}/drive", np.arange(5))
        run(store, requests_for(f"{protocol}/drive", range(5), {"protocol": protocol}), Ones())  # type: ignore[arg-type]
    reader = StoreReader(store.path)
    assert reader.groups() == ["exact/drive", "slice-300/drive"]
    assert all(reader.rows(group).all() for group in reader.groups())
    with pytest.raises(StoreError, match="group 'exact/drive'"):
        plan(store, requests_for("exact/drive", range(5), {"protocol": "other"}))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (spec(dataset="kitti-360"), 'dataset "synthetic", not "kitti-360".*--store NAME'),
        (spec(resize="area"), 'resize null, not "area"'),
        (StoreSpec("frames", spec().arrays, attributes=spec().attributes), "a store of depth, not of frames"),
        (StoreSpec("depth", spec().arrays[:2], attributes=spec().attributes), "laid out otherwise"),
    ],
)
def test_a_store_of_something_else_is_refused(new_store: NewStore, other: StoreSpec, said: str) -> None:
    path = new_store().path
    with pytest.raises(StoreError, match=said):
        Store.create_or_open(path, other)


def test_other_versions_and_other_things_are_refused(new_store: NewStore, tmp_path: Path) -> None:
    path = new_store().path
    metadata = path / "zarr.json"
    text = metadata.read_text()
    metadata.write_text(text.replace('"format_version": 1', '"format_version": 2'))
    for act in (lambda: StoreReader(path), lambda: Store.create_or_open(path, spec())):
        with pytest.raises(StoreError, match="format version 2, of a newer vipocc"):
            act()
    metadata.write_text(text[:50])
    with pytest.raises(StoreError, match="metadata is damaged"):
        StoreReader(path)
    folder = tmp_path / "photos.zarr"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"")
    with pytest.raises(StoreError, match="something else"):
        Store.create_or_open(folder, spec())
    with pytest.raises(MissingInputError, match=r"no store 'anchors' yet.*vipocc priors sam"):
        StoreReader(tmp_path / "anchors.zarr", fix="run `vipocc priors sam`")
    assert not list(tmp_path.glob("anchors*"))


def test_a_group_of_other_frames_is_refused(new_store: NewStore) -> None:
    store = new_store()
    store.ensure_group(GROUP, np.arange(100) * 3)
    with pytest.raises(StoreError, match="100 rows of other frames"):
        store.ensure_group(GROUP, np.arange(100) * 3 + 1)


def test_a_group_half_made_by_a_kill_is_made_again(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    (store.ledger.path / GROUP / "group.json").unlink()
    (store.path / GROUP / "depth" / "zarr.json").unlink()
    store.ensure_group(GROUP, np.arange(100) * 3)
    run(store, requests([1]), Computer(tmp_path / "log"))
    check_values(store, [1])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_a_full_or_read_only_disk_is_one_clear_error(
    new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    store, log = new_store(), tmp_path / "log"
    run(store, requests([1, 2]), Computer(log))
    before = shards(store)

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    said = "disk is full.*free some space" if code == errno.ENOSPC else "cannot be written.*-C"
    with monkeypatch.context() as patch:
        if call == "write":
            patch.setattr("vipocc.stores.commit.write_durably", fail)
        else:
            patch.setattr(os, call, fail)
        with pytest.raises(StoreError, match=said):
            run(store, requests([1, 2, 3]), Computer(log))
    assert shards(store) == before
    check_values(store, [1, 2])
    if call == "write":
        assert not list(store.ledger.path.rglob("*.partial")), "a full disk gets its space back"
    run(store, requests([1, 2, 3]), Computer(log))
    check_values(store, [1, 2, 3])


@pytest.mark.parametrize("fault", ["dtype", "shape", "names", "rows"])
def test_what_a_computer_returns_is_checked(new_store: NewStore, tmp_path: Path, fault: str) -> None:
    class Wrong(Computer):
        def compute(self, unit: Unit, rows: object) -> dict[str, np.ndarray]:
            made = batch([1])
            if fault == "dtype":
                made["depth"] = made["depth"].astype(np.float32)
            elif fault == "shape":
                made["depth"] = made["depth"][:, 1:]
            elif fault == "names":
                del made["count"]
            else:
                made = batch([1, 2])
            return made

    with pytest.raises(UsageError, match="belong"):
        run(new_store(), requests([1]), Wrong(tmp_path / "log"))


ORDERS = st.lists(st.sets(st.integers(0, 69), min_size=1, max_size=20), min_size=1, max_size=3)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ORDERS)
@example([{3, 4, 66}, {5, 7}, {0, 3, 65}])
def test_any_order_of_extension_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, asked: list[set[int]]
) -> None:
    check_order(tmp_path_factory, asked)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ORDERS)
def test_many_orders_of_extension_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, asked: list[set[int]]
) -> None:
    check_order(tmp_path_factory, asked)


def check_order(tmp_path_factory: pytest.TempPathFactory, asked: list[set[int]]) -> None:
    folder = tmp_path_factory.mktemp("order")

    def filled(name: str, steps: list[set[int]]) -> Store:
        store = Store.create_or_open(folder / f"{name}.zarr", spec(), folder)
        store.ensure_group(GROUP, np.arange(70))
        for step in steps:
            run(store, requests(sorted(step)), Computer(folder / f"{name}.log"))
        return store

    grown, whole = filled("grown", asked), filled("whole", [set().union(*asked)])
    assert shards(grown) == shards(whole)
    assert sorted(computed(folder / "grown.log")) == sorted(set().union(*asked)), "no row is computed twice"
    reader = StoreReader(grown.path)
    assert set(np.flatnonzero(reader.rows(GROUP)).tolist()) == set().union(*asked)
    check_values(grown, sorted(set().union(*asked)))


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 64), st.data())
def test_shards_hold_what_they_were_given(n: int, data: st.DataObject) -> None:
    positions = data.draw(st.sets(st.integers(0, n - 1), min_size=1))
    for array in spec().arrays:
        rows = {p: batch([p + 8])[array.name][0] for p in positions}
        content = encode_shard(array, rows, n)
        assert content == encode_shard(array, dict(reversed(rows.items())), n)
        decoded = decode_shard(array, content, n)
        fill = np.full(array.shape, array.fill, array.dtype)
        for position in range(n):
            np.testing.assert_array_equal(decoded[position], rows.get(position, fill))


def test_select_parts_the_units() -> None:
    wanted = requests(range(64 * 7))
    parts = [select(wanted, i, 3) for i in range(3)]
    assert sorted(r.unit for part in parts for r in part) == [r.unit for r in wanted]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert parse_shard("2/8") == (2, 8)
    for text in ("8/8", "1", "a/b", "-1/3"):
        with pytest.raises(UsageError, match="--shard I/N"):
            parse_shard(text)
    with pytest.raises(UsageError):
        select(wanted, 3, 3)


def test_specifications_are_checked_and_travel(new_store: NewStore) -> None:
    with pytest.raises(UsageError, match="cannot be filled with NaN"):
        ArraySpec("a", (), "uint8", np.nan, (), "1")
    with pytest.raises(UsageError, match="names 1"):
        ArraySpec("a", (2, 3), "uint8", 0, ("x",), "1")
    with pytest.raises(UsageError, match="cannot name"):
        ArraySpec("frame_id", (), "uint8", 0, (), "1")
    for group in ("", "/a", "a//b", "../a", "a/../b"):
        with pytest.raises(UsageError, match="cannot name a group"):
            Unit(group, 0)
    with pytest.raises(UsageError, match="not all in unit"):
        Request(Unit(GROUP, 0), (64,), {}, {})
    assert StoreSpec.from_json(spec().to_json()).to_json() == spec().to_json()
    store = new_store()
    travelled = pickle.loads(pickle.dumps(store))
    assert (travelled.path, travelled.root) == (store.path, store.root)
    assert travelled.spec.to_json() == store.spec.to_json()


def test_records_survive_neither_a_flipped_bit_nor_a_cut(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(), tmp_path / "log"
    run(store, requests([1, 2]), Computer(log))
    file = store.ledger.file(Unit(GROUP, 0), "json")
    content = file.read_bytes()
    for damaged in (content[:-20], content[:200] + bytes([content[200] ^ 1]) + content[201:], b""):
        file.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"record is damaged.*vipocc stores verify"):
            StoreReader(store.path).rows(GROUP)
        assert plan(store, requests([1, 2])).missing == 2
    file.write_bytes(content)
    assert plan(store, requests([1, 2])).missing == 0


def test_a_shard_that_vanished_or_was_cut_is_planned_anew(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(), tmp_path / "log"
    run(store, requests(range(100)), Computer(log))
    path = shard_path(store.path, Unit(GROUP, 1), store.spec.array("image"))
    path.write_bytes(path.read_bytes()[:-9])
    assert [t.request.unit.shard for t in plan(store, requests(range(100))).todo] == [1]
    path.unlink()
    assert plan(store, requests(range(100))).missing == 36
    run(store, requests(range(100)), Computer(log))
    check_values(store, range(100))


def test_only_sound_rows_are_taken_from_an_altered_shard(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(), tmp_path / "log"
    run(store, requests([1, 2]), Computer(log))
    path = shard_path(store.path, Unit(GROUP, 0), store.spec.array("count"))
    content = bytearray(path.read_bytes())
    content[3] ^= 4
    path.write_bytes(content)
    run(store, requests([1, 2, 3]), Computer(log))
    assert computed(log) == [1, 2, 1, 3]
    check_values(store, [1, 2, 3])


def test_rows_not_asked_for_survive_damage_elsewhere_in_their_shard(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(), tmp_path / "log"
    run(store, requests(range(10)), Computer(log))
    before = {row: StoreReader(store.path).row_digest(GROUP, row) for row in range(10)}
    path = shard_path(store.path, Unit(GROUP, 0), store.spec.array("image"))
    content = bytearray(path.read_bytes())
    content[30] ^= 4  # in the chunk of row 0
    path.write_bytes(content)
    run(store, requests([20]), Computer(log))
    assert computed(log) == [*range(10), 20]
    assert list(np.flatnonzero(StoreReader(store.path).rows(GROUP))) == [*range(1, 10), 20]
    check_values(store, [*range(1, 10), 20])
    assert all(StoreReader(store.path).row_digest(GROUP, row) == before[row] for row in range(1, 10))


@pytest.mark.parametrize("rows", [[99, 100], [100], [200], [-1]])
def test_rows_beyond_the_group_are_refused(new_store: NewStore, tmp_path: Path, rows: list[int]) -> None:
    store, log = new_store(), tmp_path / "log"
    wanted = requests(rows)
    with pytest.raises(UsageError, match=f"has 100 rows and no row {rows[-1]}"):
        run(store, wanted, Computer(log))
    assert computed(log) == []
    first = Unit(GROUP, 1)
    with pytest.raises(UsageError, match="no row 100"):
        commit(store, Request(first, (99, 100), {"model": "tiny"}, {}), (99, 100), batch([99, 100]), {}, None)
    assert not StoreReader(store.path).rows(GROUP).any()


def test_a_store_removed_without_its_ledger_is_begun_anew(new_store: NewStore, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(new_store(), requests([1, 2]), Computer(log))
    shutil.rmtree(tmp_path / "depth.zarr")
    store = new_store()
    assert not StoreReader(store.path).rows(GROUP).any()
    run(store, requests([2, 3]), Computer(log))
    assert computed(log) == [1, 2, 2, 3]
    assert verify(store.path).sound
    check_values(store, [2, 3])


def test_a_store_without_its_ledger_is_refused_not_written_over(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    run(store, requests([1, 2]), Computer(tmp_path / "log"))
    whole = shards(store)
    store.ledger.path.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"ledger is not beside it.*put the ledger back"):
        StoreReader(store.path).rows(GROUP)
    with pytest.raises(StoreError, match=r"ledger is not beside it.*put the ledger back"):
        new_store()
    assert shards(store) == whole
    shutil.rmtree(store.ledger.path)
    (tmp_path / "elsewhere").rename(store.ledger.path)
    new_store()
    check_values(store, [1, 2])


@pytest.mark.parametrize("damage", ["group removed", "array metadata removed", "array metadata cut", "frame ids"])
def test_metadata_of_a_group_is_mended_and_its_shards_are_kept(
    new_store: NewStore, tmp_path: Path, damage: str
) -> None:
    store, log = new_store(), tmp_path / "log"
    run(store, requests([1, 2, 70]), Computer(log))
    whole = shards(store)
    folder = store.path / GROUP
    said = {"group removed": "has no metadata", "array metadata removed": "has no metadata"}.get(damage, "has other")
    if damage == "group removed":
        shutil.rmtree(folder)
    elif damage == "array metadata removed":
        (folder / "depth" / "zarr.json").unlink()
    elif damage == "array metadata cut":
        (folder / "depth" / "zarr.json").write_text("{")
    else:
        said = "'frame_id'"
        other = zarr.open_array(str(folder / "frame_id"), mode="a")
        other[3] = 77
        with pytest.raises(StoreError, match="frame ids of 'drive/image_00' were altered"):
            StoreReader(store.path).frame_ids(GROUP)
    findings = verify(store.path).findings
    assert any(finding.unit == GROUP and said in finding.reason for finding in findings)
    store = new_store()
    if damage != "group removed":
        assert shards(store) == whole
    run(store, requests([1, 2, 70]), Computer(log))
    assert computed(log) == ([1, 2, 70] * 2 if damage == "group removed" else [1, 2, 70])
    assert shards(store) == whole
    assert verify(store.path).sound
    check_values(store, [1, 2, 70])
    np.testing.assert_array_equal(StoreReader(store.path).frame_ids(GROUP), np.arange(100) * 3)


def test_an_upstream_row_that_changes_meanwhile_is_not_recorded(new_store: NewStore, tmp_path: Path) -> None:
    """Rows made from a row that was replaced during the work are not committed under its former digest."""
    upstream, store, log = new_store("frames"), new_store(), tmp_path / "log"
    run(upstream, requests([1, 2]), Computer(tmp_path / "upstream"))
    refs = row_refs(StoreReader(upstream.path), GROUP, [1, 2])
    wanted = requests_for(GROUP, [1, 2], {"model": "tiny"}, {row: [ref] for row, ref in refs.items()})

    class Meanwhile(Computer):
        def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, np.ndarray]:
            run(upstream, requests([2], revision="2"), Computer(tmp_path / "upstream", salt=1), overwrite=True)
            return super().compute(unit, rows)

    with pytest.raises(DataError, match=r"row 1 of 'drive/image_00' changed while.*frames\.zarr; run again"):
        run(store, wanted, Meanwhile(log))
    assert plan(store, wanted).done == 0


def test_work_is_planned_before_its_groups_are_made(tmp_path: Path) -> None:
    store = Store.create_or_open(tmp_path / "depth.zarr", spec(), tmp_path)
    assert plan(store, requests(range(70))).missing == 70
    with pytest.raises(StoreError, match="no group 'drive/image_00'"):
        run(store, requests(range(70)), Computer(tmp_path / "log"))
