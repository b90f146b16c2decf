"""What rows are made from: files and rows of other stores, compared with what they are now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vipocc.errors import DataError, MissingInputError, StoreError
from vipocc.stores import layout
from vipocc.stores.files import digest_file
from vipocc.stores.ledger import Ledger
from vipocc.stores.reader import committed_rows, unit_rows
from vipocc.stores.spec import SHARD, Json, Request, Unit, file_ref
from vipocc.stores.writer import Store


def check_unchanged(store: Store, request: Request, rows: Sequence[int]) -> None:
    """Raise `DataError` if an input of these rows is no longer what the request says it is."""
    upstream = _Upstream(store)
    for row in rows:
        for ref in request.inputs[row]:
            if "path" in ref:
                path = store.root / ref["path"]
                now = file_ref(path, store.root)
                if any(now[k] != ref[k] for k in ("size", "mtime_ns") if k in ref):
                    raise DataError("an input file changed while it was being worked on", where=path, fix="run again")
            elif not upstream.holds(ref):
                raise DataError(
                    f"row {ref['row']} of '{ref['group']}' changed while it was being worked on",
                    where=store.path.with_name(str(ref["store"])),
                    fix="run again",
                )


def with_digests(
    store: Store, request: Request, rows: Sequence[int], read: Callable[[str], str | None] | None = None
) -> dict[int, list[Json]]:
    """Return the references of these rows as the record keeps them: files with the digest of their content.

    Each file is read once, and not at all if `read` (a computer's `digest_read`) knows the digest of its content.
    """
    known: dict[str, str] = {}

    def kept(ref: Json) -> Json:
        if "path" not in ref:
            return ref
        path = str(ref["path"])
        if path not in known:
            known[path] = (read(path) if read is not None else None) or digest_file(store.root / path)
        return {**ref, "digest": known[path]}

    return {row: [kept(ref) for ref in request.inputs[row]] for row in rows}


@dataclass
class _Upstream:
    """Rows of the stores beside this one, a unit at a time."""

    store: Store
    ledgers: dict[str, Ledger | None] = field(default_factory=dict)
    units: dict[tuple[str, Unit], dict[int, str]] = field(default_factory=dict)

    def holds(self, ref: Json) -> bool:
        """Tell whether the row is still of this digest; a store that is not beside this one cannot be asked."""
        name, row = str(ref["store"]), int(ref["row"])
        if name not in self.ledgers:
            self.ledgers[name] = _ledger_beside(self.store, name)
        ledger = self.ledgers[name]
        if ledger is None:
            return True
        unit = Unit(str(ref["group"]), row // SHARD)
        if (name, unit) not in self.units:
            self.units[name, unit] = unit_rows(ledger, unit)
        return self.units[name, unit].get(row) == str(ref["digest"])


@dataclass
class RecordedInputs:
    """Compares recorded inputs with what is there now, files by content; each file and group is looked at once.

    Threads may share one.

    Attributes:
        files: digests of the files looked at, None of those that are no longer there.
        rows: of each group of another store, the digests of its rows.
    """

    store: Store
    files: dict[str, str | None] = field(default_factory=dict)
    rows: dict[tuple[str, str], dict[int, str] | None] = field(default_factory=dict)

    def looked_at(self, refs: list[Json]) -> dict[str, bool]:
        """Return those files among some inputs that were looked at, and whether they are there."""
        files = {str(ref["path"]) for ref in refs if "path" in ref}
        return {path: self.files[path] is not None for path in files if path in self.files}

    def changed(self, refs: list[Json]) -> str:
        """Return the name of the first input that is not what it was, or nothing."""
        for ref in refs:
            now = self._file(ref["path"]) if "path" in ref else self._row(ref)
            if now is not None and now != ref["digest"]:
                return str(ref.get("path") or f"{ref['store']}/{ref['group']} row {ref['row']}")
        return ""

    def _file(self, path: str) -> str | None:
        if path not in self.files:
            try:
                self.files[path] = digest_file(self.store.root / path)
            except OSError:
                self.files[path] = None
        return self.files[path]

    def _row(self, ref: Json) -> str | None:
        key = (str(ref["store"]), str(ref["group"]))
        if key not in self.rows:
            try:
                ledger = _ledger_beside(self.store, key[0])
                self.rows[key] = None if ledger is None else committed_rows(ledger, key[1])
            except (OSError, StoreError):
                self.rows[key] = None
        held = self.rows[key]
        return None if held is None else held.get(int(ref["row"]))


def _ledger_beside(store: Store, name: str) -> Ledger | None:
    path = store.path.with_name(name)
    try:
        return Ledger.of(path, layout.read_root(path))
    except (MissingInputError, StoreError):
        return None
