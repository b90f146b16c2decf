"""The ledger: one small JSON record per unit, which alone says what a store holds.

Files of a unit, under `<store>.ledger/<group>/`:

    00003.json               the record: rows, inputs, fingerprint, checksum of each array's shard
    00003.next               the record of a replacement under way; its shards are staged, or already in place
    00003.<array>.partial    a staged shard
    00003.rejected           a record that verification found not to hold
    00003.lock               held by whoever writes the unit

A replacement stages all shards, then writes `.next`, then renames the shards into place, then renames `.next` to
`.json`. Killed before `.next` exists, the old state stands; after it, the replacement can always be carried through.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vipocc.errors import StoreError
from vipocc.stores.files import digest_bytes, locked, replace_durably
from vipocc.stores.spec import FORMAT_VERSION, Json, StoreSpec, Unit, json_digest

# A record begins with the digest of the bytes after it, so that a flipped bit in a record is noticed too.
_HEAD = '{"record_digest":"%s",\n'
_HEAD_SIZE = len(_HEAD % ("0" * 32))

_STORE_LOCK, _GROUP = "store.lock", "group.json"


@dataclass(frozen=True)
class Record:
    """What one unit holds.

    `rows` maps a row to `{"digest": …, "inputs": […]}`; `arrays` maps an array's name to `{"digest", "size"}` of its
    shard file.
    """

    unit: Unit
    rows: dict[int, Json]
    fingerprint: Json
    arrays: dict[str, Json]
    provenance: Json

    @cached_property
    def fingerprint_digest(self) -> str:
        """Digest of the fingerprint, which decides whether the record counts."""
        return json_digest(self.fingerprint)

    def encode(self) -> bytes:
        """Return the record as the bytes of its file."""
        values = {
            "format_version": FORMAT_VERSION, "group": self.unit.group, "shard": self.unit.shard, **self.provenance,
            "fingerprint": self.fingerprint, "arrays": self.arrays,
            "rows": {str(row): self.rows[row] for row in sorted(self.rows)},
        }  # fmt: skip
        body = json.dumps(values, separators=(",", ":"), ensure_ascii=False)[1:].encode() + b"\n"
        return (_HEAD % digest_bytes(body)).encode() + body

    @classmethod
    def decode(cls, content: bytes, where: Path) -> Record:
        """Read a record; raises `StoreError` if it was altered or is of another format version."""
        head, body = content[:_HEAD_SIZE], content[_HEAD_SIZE:]
        if head != (_HEAD % digest_bytes(body)).encode():
            raise StoreError("a ledger record is damaged", where=where, fix="run `vipocc stores verify`")
        values: dict[str, Any] = json.loads(b"{" + body)
        if values.pop("format_version") != FORMAT_VERSION:
            raise StoreError("a ledger record was written by another version of vipocc", where=where)
        unit = Unit(values.pop("group"), values.pop("shard"))
        rows = {int(row): entry for row, entry in values.pop("rows").items()}
        return cls(unit, rows, values.pop("fingerprint"), values.pop("arrays"), values)


@dataclass(frozen=True)
class Ledger:
    """The records beside one store. Holds no handles; cheap to make and to pickle."""

    path: Path
    scope: str = "store"

    @classmethod
    def of(cls, store: Path, spec: StoreSpec) -> Ledger:
        """Return the ledger of the store at `store`."""
        return cls(store.with_name(store.name + ".ledger"), spec.fingerprint_scope)

    def file(self, unit: Unit, ending: str) -> Path:
        """Return the path of one of the unit's files."""
        return self.path / f"{unit.key}.{ending}"

    def staged(self, unit: Unit, array: str) -> Path:
        """Return where the shard of one array waits until it is renamed into the store."""
        return self.path / f"{unit.key}.{array}.partial"

    def read(self, unit: Unit, ending: str = "json") -> Record | None:
        """Return the unit's record, None if it has none; raises `StoreError` if it is damaged."""
        file = self.file(unit, ending)
        try:
            content = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        record = Record.decode(content, file)
        if record.unit != unit:
            raise StoreError(
                "a ledger record lies in the place of another", where=file, fix="run `vipocc stores verify`"
            )
        return record

    def write(self, record: Record, ending: str = "json") -> None:
        """Put a record in place, durably, whole."""
        replace_durably(self.file(record.unit, ending), record.encode())

    def lock(self, unit: Unit, *, wait: bool = False) -> AbstractContextManager[bool]:
        """Hold the unit for writing; gives False if another process has it and `wait` is not set."""
        return locked(self.file(unit, "lock"), wait=wait)

    def store_lock(self) -> AbstractContextManager[bool]:
        """Hold the store's metadata (groups, fingerprint) for writing; waits."""
        return locked(self.path / _STORE_LOCK, wait=True)

    def clear(self) -> None:
        """Forget everything; the caller holds the store lock."""
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != _STORE_LOCK:
                entry.unlink()

    def units(self, group: str | None = None, ending: str = "json") -> Iterator[Unit]:
        """Yield the units that have a file of this ending, in order."""
        base = self.path / group if group else self.path
        pattern = f"*.{ending}" if group else f"**/*.{ending}"
        found = []
        for file in base.glob(pattern):
            if file.stem.isdigit():
                found.append(Unit(file.parent.relative_to(self.path).as_posix(), int(file.stem)))
        yield from sorted(found)

    def group_record(self, group: str) -> Json | None:
        """Return how many rows a group has and the digest of its frame ids, None while the group is not made."""
        file = self.path / group / _GROUP
        try:
            values = json.loads(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            values = None
        if not isinstance(values, dict) or set(values) != {"rows", "frame_ids_digest"}:
            raise StoreError("the record of a group is damaged", where=file, fix="move the store away")
        return values

    def set_group_record(self, group: str, values: Json) -> None:
        """Say that a group is made."""
        replace_durably(self.path / group / _GROUP, json.dumps(values).encode())

    def groups(self) -> list[str]:
        """Return the names of the groups that are made, sorted."""
        return sorted(file.parent.relative_to(self.path).as_posix() for file in self.path.glob(f"**/{_GROUP}"))

    def identity_file(self, group: str) -> Path:
        """Return where the fingerprint that the store (or the group) holds is written down."""
        return (self.path / group if self.scope == "group" else self.path) / "fingerprint.json"

    def identity(self, group: str) -> Json | None:
        """Return the fingerprint whose rows count in this group, None while nothing was ever written."""
        file = self.identity_file(group)
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            raise StoreError("the store's fingerprint is damaged", where=file, fix="delete it and run again") from None
        if not isinstance(values, dict):
            raise StoreError("the store's fingerprint is damaged", where=file, fix="delete it and run again")
        return values

    def set_identity(self, group: str, fingerprint: Json) -> None:
        """Give the store (or the group) over to another fingerprint; rows of the old one stop counting at once."""
        text = json.dumps(fingerprint, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        replace_durably(self.identity_file(group), text.encode())

    def counts(self, record: Record) -> bool:
        """Tell whether a record belongs to the fingerprint that the store holds now."""
        identity = self.identity(record.unit.group)
        return identity is not None and json_digest(identity) == record.fingerprint_digest


def ledger_missing(ledger: Path) -> StoreError:
    """Return the error about shards without the ledger that says what they hold."""
    return StoreError(
        "the store's ledger is not beside it, and nothing else says which rows it holds",
        where=ledger,
        fix="put the ledger back, or move the store away and make it again",
    )
