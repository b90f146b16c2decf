"""Making a store sound: carry through what kills interrupted, save good rows of damaged units, clear litter away."""

from __future__ import annotations

from pathlib import Path

from vipocc.stores.commit import rescue
from vipocc.stores.files import storage_errors
from vipocc.stores.spec import Json, Unit
from vipocc.stores.verification import open_store, verify
from vipocc.stores.writer import Store


def repair(path: Path | str) -> Json:
    """Carry through interrupted replacements, clear litter away, save the good rows of rejected units.

    Returns:
        Counts: `carried_through`, `litter` (files removed), `saved` and `lost` (rows of rejected units), and `todo`,
        the units that the next run of the command which made them will make again.
    """
    store = open_store(path)
    before = verify(path)
    counts: Json = {"carried_through": len(before.interrupted), "litter": 0, "saved": 0, "lost": 0, "todo": []}
    with storage_errors(store.path):
        for unit in list(store.ledger.units(ending="rejected")):
            with store.ledger.lock(unit) as mine:
                if mine and not store.ledger.file(unit, "json").exists():
                    saved, lost = rescue(store, unit)
                    store.ledger.file(unit, "rejected").unlink(missing_ok=True)
                    counts["saved"] += saved
                    counts["lost"] += lost
                    counts["todo"] += [unit.key] if lost or not saved else []
        counts["litter"] = _clear(store)
    return counts


def _clear(store: Store) -> int:
    """Remove what killed writers left: staged files that belong to no replacement under way, and Zarr's own."""
    count = 0
    for file in store.ledger.path.glob("**/*.partial"):
        number = file.name.split(".", 1)[0]
        group = file.parent.relative_to(store.ledger.path).as_posix()
        if number.isdigit() and group != ".":
            with store.ledger.lock(Unit(group, int(number))) as mine:
                if mine and not store.ledger.file(Unit(group, int(number)), "next").exists():
                    file.unlink(missing_ok=True)
                    count += 1
        else:
            with store.ledger.store_lock():
                file.unlink(missing_ok=True)
                count += 1
    with store.ledger.store_lock():
        for file in store.path.glob("**/*.partial"):
            file.unlink(missing_ok=True)
            count += 1
    return count
