"""Installs sources as packages beside vipocc: modules and a distribution's metadata in a folder on the path."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from vipocc.priors.sources import source_class


def install(
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    modules: Mapping[str, str],
    points: Mapping[str, Mapping[str, str]],
    distribution: str = "my_priors",
) -> None:
    """Put modules (name -> text) and entry points (group -> name -> target) into `site`, and that onto the path."""
    information = site / f"{distribution}-1.0.dist-info"
    information.mkdir(parents=True)
    for name, text in modules.items():
        path = site / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{n} = {t}\n" for n, t in of.items()) for group, of in points.items()]
    (information / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(site)
    source_class.cache_clear()


def forget(modules: Mapping[str, str]) -> None:
    """Undo what importing the modules left behind."""
    source_class.cache_clear()
    for name in modules:
        sys.modules.pop(name, None)
