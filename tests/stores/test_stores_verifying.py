from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from stores_helpers import GROUP, Computer, batch, computed, requests, shards

from vipocc import cli
from vipocc.errors import StoreError
from vipocc.stores import Store, StoreReader, Unit, file_ref, plan, repair, requests_for, row_refs, run, status, verify
from vipocc.stores.layout import shard_path
from vipocc.workspace import Workspace

NewStore = Callable[..., Store]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    # The same time stamps as before: only the checksum can tell.
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def damage(store: Store, how: str) -> str:
    """Damage unit 1 of 3 and return what verification must say."""
    path = shard_path(store.path, Unit(GROUP, 1), store.spec.array("depth"))
    if how == "flipped":
        flip(path, 30)
        return "'depth' was altered"
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
        return "'depth' has"
    if how == "missing":
        path.unlink()
        return "'depth' is missing"
    flip(store.ledger.file(Unit(GROUP, 1), "json"), 300)
    return "record is damaged"


@pytest.mark.parametrize("how", ["flipped", "truncated", "missing", "record"])
def test_what_verification_rejects_is_made_again_and_nothing_else(
    new_store: NewStore, tmp_path: Path, how: str
) -> None:
    store, log = new_store(n=140), tmp_path / "log"
    run(store, requests(range(140)), Computer(log))
    whole = shards(store)
    assert verify(store.path).sound
    said = damage(store, how)
    report = verify(store.path)
    assert [f.unit for f in report.findings] == [f"{GROUP}/00001"]
    assert said in report.findings[0].reason
    assert report.findings[0].marked
    assert (report.units, report.sound) == (3, False)
    assert plan(store, requests(range(140))).todo[0].missing == tuple(range(64, 128))
    assert np.flatnonzero(~StoreReader(store.path).rows(GROUP)).tolist() == list(range(64, 128))
    assert not verify(store.path).sound, "a rejected unit stays wrong until it is made again"
    log.unlink()
    run(store, requests(range(140)), Computer(log))
    # The flipped bit is in one chunk; a cut takes the index of all chunks with it.
    assert computed(log) == ([64] if how == "flipped" else list(range(64, 128)))
    assert shards(store) == whole
    assert verify(store.path).sound
    assert not list(tmp_path.rglob("*.rejected"))


@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_altered_shards_are_an_error_to_the_reader_not_wrong_data(
    new_store: NewStore, tmp_path: Path, how: str
) -> None:
    store = new_store(n=140)
    run(store, requests(range(140)), Computer(tmp_path / "log"))
    damage(store, how)
    reader = StoreReader(store.path)
    with pytest.raises(StoreError, match=r"missing, truncated or altered.*vipocc stores verify depth"):
        reader.read_many(GROUP, range(64, 128), "depth")
    np.testing.assert_array_equal(reader.read_many(GROUP, range(64), "depth"), batch(range(64))["depth"])


def test_every_flipped_byte_is_an_error_or_harmless(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    run(store, requests([0, 1, 2]), Computer(tmp_path / "log"))
    path = shard_path(store.path, Unit(GROUP, 0), store.spec.array("depth"))
    content, truth = path.read_bytes(), StoreReader(store.path).read_many(GROUP, [0, 1, 2], "depth")
    refused = 0
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            np.testing.assert_array_equal(StoreReader(store.path).read_many(GROUP, [0, 1, 2], "depth"), truth)
        except StoreError:
            refused += 1
    assert refused > len(content) // 7 * 0.9


def test_deep_verification_compares_inputs(new_store: NewStore, tmp_path: Path) -> None:
    upstream, store, log = new_store("frames"), new_store(), tmp_path / "log"
    run(upstream, requests(range(4)), Computer(tmp_path / "upstream"))
    files = [tmp_path / f"{row}.png" for row in range(4)]
    for file in files:
        file.write_bytes(b"image")

    def wanted() -> list:
        refs = row_refs(StoreReader(upstream.path), GROUP, range(4))
        inputs = {row: [file_ref(file, tmp_path), refs[row]] for row, file in enumerate(files)}
        return requests_for(GROUP, range(4), {"model": "tiny"}, inputs)

    run(store, wanted(), Computer(log))
    assert verify(store.path, deep=True, root=tmp_path).inputs_checked == 4
    stamp = files[2].stat().st_mtime_ns
    files[2].write_bytes(b"other")
    os.utime(files[2], ns=(stamp, stamp))
    files[3].unlink()
    assert verify(store.path, root=tmp_path).sound, "contents of inputs are looked at by deep only"
    report = verify(store.path, deep=True, root=tmp_path)
    assert report.inputs_gone == 1
    assert [(f.rows, f.marked) for f in report.findings] == [(1, True)]
    assert "2.png" in report.findings[0].reason
    assert np.flatnonzero(StoreReader(store.path).rows(GROUP)).tolist() == [0, 1, 3]
    run(upstream, requests([1], revision="2"), Computer(tmp_path / "upstream", salt=1), overwrite=True)
    report = verify(store.path, deep=True, root=tmp_path)
    assert "frames.zarr/drive/image_00 row 1" in report.findings[0].reason
    assert np.flatnonzero(StoreReader(store.path).rows(GROUP)).tolist() == [0, 3]


def test_repair_saves_the_good_rows_of_a_damaged_unit(new_store: NewStore, tmp_path: Path) -> None:
    store, log = new_store(), tmp_path / "log"
    run(store, requests(range(100)), Computer(log))
    whole = shards(store)
    flip(shard_path(store.path, Unit(GROUP, 0), store.spec.array("image")), 30)
    stray = store.ledger.path / GROUP / "00001.depth.partial"
    stray.write_bytes(b"left by a kill")
    counts = repair(store.path)
    assert (counts["saved"], counts["lost"], counts["litter"], counts["todo"]) == (63, 1, 1, [f"{GROUP}/00000"])
    assert not stray.exists()
    assert verify(store.path).sound
    log.unlink()
    run(store, requests(range(100)), Computer(log))
    assert computed(log) == [0]
    assert shards(store) == whole
    assert repair(store.path) == {"carried_through": 0, "litter": 0, "saved": 0, "lost": 0, "todo": []}


def test_a_store_that_cannot_be_written_is_checked_but_not_marked(
    new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(n=140)
    run(store, requests(range(140)), Computer(tmp_path / "log"))
    damage(store, "flipped")
    real = os.open

    def read_only(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        report = verify(store.path)
        assert StoreReader(store.path).rows(GROUP).all()
    assert [f.marked for f in report.findings] == [False]
    assert store.ledger.file(Unit(GROUP, 1), "json").exists()


def test_a_unit_being_written_is_left_out(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    run(store, requests(range(100)), Computer(tmp_path / "log"))
    with store.ledger.lock(Unit(GROUP, 1)):
        report = verify(store.path)
    assert report.in_work == [f"{GROUP}/00001"]
    assert report.sound


def test_status(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store()
    assert status(store.path)["done"] == 0
    run(store, requests([1, 2, 70]), Computer(tmp_path / "log"))
    held = status(store.path)
    assert (held["done"], held["rows"], held["units"]) == (3, 100, 2)
    assert held["groups"] == {GROUP: {"rows": 100, "done": 3}}
    assert held["fingerprints"] == [{"model": "tiny", "revision": "1"}]
    assert held["bytes"] == sum((store.path / name).stat().st_size for name in shards(store) if "frame_id" not in name)


@pytest.fixture
def workspace(tmp_path: Path) -> tuple[Path, Store]:
    from stores_helpers import spec

    made = Workspace.create(tmp_path / "work", "synthetic")
    store = Store.create_or_open(made.store("depth"), spec(), made.root)
    store.ensure_group(GROUP, np.arange(100))
    run(store, requests(range(100)), Computer(tmp_path / "log"))
    return made.path, store


def command(folder: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        cli.cli, ["stores", *arguments, "-C", str(folder)], obj=cli.App(), standalone_mode=False
    )
    if result.exception is not None:
        raise result.exception
    return int(result.return_value or 0), result.stdout


def test_commands(workspace: tuple[Path, Store]) -> None:
    folder, store = workspace
    code, text = command(folder, "status")
    assert code == 0
    assert "depth: 100 of 100 rows, 2 units" in text
    assert "made by: model tiny, revision 1" in text
    assert json.loads(command(folder, "status", "depth", "--json")[1])["stores"][0]["done"] == 100
    assert command(folder, "verify")[0] == 0
    flip(shard_path(store.path, Unit(GROUP, 1), store.spec.array("image")), 30)
    code, text = command(folder, "verify", "depth")
    assert code == 2
    assert "drive/image_00/00001: 'image' was altered" in text
    assert "`vipocc priors depth` makes just those rows again" in text
    code, text = command(folder, "repair", str(store.path))
    assert code == 2
    assert "35 rows saved, 1 lost" in text
    code, text = command(folder, "verify", "--json", "--deep")
    assert (code, json.loads(text)["sound"]) == (0, True)


def test_commands_without_stores_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Workspace.create(tmp_path / "work", "synthetic")
    assert cli.run(["stores", "verify", "-C", str(tmp_path / "work")]) == 2
    assert "there are no stores in this workspace yet" in capsys.readouterr().err
    assert cli.run(["stores", "status", "anchors", "-C", str(tmp_path / "work")]) == 2
    assert "there is no store 'anchors' yet" in capsys.readouterr().err
