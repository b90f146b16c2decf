"""Where things are: `vipocc.yaml` and the manifests, stores, runs and reports beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vipocc.errors import UsageError, WorkspaceError

FILE = "vipocc.yaml"
FORMAT = 1
ENVIRONMENT = "VIPOCC_WORKSPACE"
_PRESETS = {"synthetic": "demo", "kitti-raw": "vipocc_kitti_raw"}
"""What a workspace of a dataset starts from where no preset is named, if it is not `vipocc`."""


@dataclass(frozen=True)
class Workspace:
    """A folder that vipocc works in: one dataset, its stores and what was trained from them."""

    path: Path
    dataset: str
    root: Path
    """Folder of the dataset's own files; nothing is ever written into it, but for the synthetic world."""
    preset: str = "vipocc"
    overrides: tuple[str, ...] = ()
    """`section.key=value` strings that every command here starts from; those of its own command line come on top."""

    @classmethod
    def create(
        cls,
        path: Path,
        dataset: str,
        root: Path | None = None,
        preset: str | None = None,
        overrides: tuple[str, ...] = (),
    ) -> Workspace:
        """Write `vipocc.yaml` into `path` and return the workspace.

        Raises:
            UsageError: no root where one is needed.
            WorkspaceError: a root that is no folder, or a workspace of something else is already there.
        """
        path = path.resolve()
        if root is None:
            if dataset != "synthetic":
                raise UsageError(
                    f"where is {dataset}?", fix="add --root FOLDER, the folder the dataset was unpacked into"
                )
            root = path / "synthetic"
        elif dataset != "synthetic" and not root.is_dir():
            raise WorkspaceError("the dataset's root is not a folder", where=root, fix="correct --root")
        if preset is not None and preset.endswith((".yaml", ".yml")):
            preset = str(Path(preset).resolve())  # a file is found from wherever later commands run
        chosen = preset or _PRESETS.get(dataset, "vipocc")
        made = cls(path, dataset, root.resolve(), chosen, tuple(overrides))
        there = path / FILE
        if there.exists():
            old = cls.open(path)
            if old != made:
                raise WorkspaceError(
                    f"this folder is already a workspace of {old.dataset} at {old.root} with preset {old.preset}"
                    + (f" and {', '.join(old.overrides)}" if old.overrides else ""),
                    where=there,
                    fix="choose another folder with -C, or delete the file to start over",
                )
            return old
        path.mkdir(parents=True, exist_ok=True)
        values = {
            "format_version": FORMAT,
            "dataset": dataset,
            "root": made._written_root(),
            "preset": made.preset,
            "overrides": list(made.overrides),
        }
        aside = there.with_suffix(".yaml.partial")
        aside.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        os.replace(aside, there)
        return made

    @classmethod
    def open(cls, path: Path) -> Workspace:
        """Read the workspace in folder `path`; raises `WorkspaceError` if there is none or its file is damaged."""
        file = path / FILE
        if not file.is_file():
            raise WorkspaceError(
                "no vipocc workspace here",
                where=path,
                fix="run `vipocc init --dataset synthetic` (or kitti-360 --root …)",
            )
        try:
            values: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
            version = values["format_version"]
            dataset, root, preset = str(values["dataset"]), Path(values["root"]), str(values["preset"])
            overrides = tuple(str(text) for text in values["overrides"])
        except (yaml.YAMLError, TypeError, KeyError, UnicodeDecodeError) as error:
            raise WorkspaceError(
                f"the workspace file is damaged ({error})", where=file, fix="write it anew with `vipocc init`"
            ) from None
        if version != FORMAT:
            raise WorkspaceError(f"workspace format {version} is not known", where=file, fix="install a newer vipocc")
        return cls(path.resolve(), dataset, (path / root).resolve(), preset, overrides)

    @classmethod
    def find(cls, explicit: str | Path | None = None) -> Workspace:
        """Open the workspace at `explicit`, else `$VIPOCC_WORKSPACE`, else the nearest parent with the file."""
        chosen = explicit or os.environ.get(ENVIRONMENT)
        if chosen:
            return cls.open(Path(chosen))
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / FILE).is_file():
                return cls.open(folder)
        return cls.open(here)

    @property
    def manifest(self) -> Path:
        """The dataset's manifest, one Parquet table."""
        return self.path / "manifests" / f"{self.dataset}.parquet"

    def store(self, kind: str, name: str | None = None) -> Path:
        """Path of the store of `kind` (frames, depth, instances, anchors, lidar, occupancy), a second one by `name`."""
        return self.path / "stores" / self.dataset / (f"{kind}-{name}.zarr" if name else f"{kind}.zarr")

    @property
    def runs(self) -> Path:
        """Folder of training runs."""
        return self.path / "runs"

    @property
    def reports(self) -> Path:
        """Folder of evaluation reports."""
        return self.path / "reports"

    def _written_root(self) -> str:
        # Relative inside the workspace, so that the folder can be moved as a whole.
        return str(self.root.relative_to(self.path)) if self.root.is_relative_to(self.path) else str(self.root)
