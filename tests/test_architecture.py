"""Dependencies between the packages point one way (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vipocc"
LEAVES = {"errors", "config", "workspace", "progress", "pictures", "page", "charts", "licences", "torch_files"}
ALLOWED: dict[str, set[str]] = {
    "geometry": set(),
    "stores": set(),
    "data_manifests": {"geometry", "stores"},
    "priors": {"data_manifests", "geometry", "stores"},
    "model": {"geometry"},
    "evaluation": {"data_manifests", "priors", "model", "geometry", "stores"},
    "training": {"evaluation", "data_manifests", "priors", "model", "geometry", "stores"},
    "apps": {"training", "evaluation", "data_manifests", "priors", "model", "geometry", "stores"},
}


def imported(file: Path) -> set[str]:
    """Names of the vipocc modules that a file imports anywhere in it, `vipocc.x.y` as `x`."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts == ["vipocc"]:
                names |= {alias.name for alias in node.names}
            elif parts[0] == "vipocc":
                names.add(parts[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vipocc.")}
    return names - {"__version__"}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package: str) -> None:
    for file in sorted((PACKAGE / package).rglob("*.py")):
        allowed = LEAVES | ALLOWED[package] | {package}
        if file.name in ("commands.py", "options.py") or package == "apps":
            allowed = allowed | {"cli"}
        assert imported(file) <= allowed, f"{file.relative_to(PACKAGE)} imports {imported(file) - allowed}"


def test_leaves_import_only_leaves() -> None:
    for leaf in LEAVES:
        assert imported(PACKAGE / f"{leaf}.py") <= LEAVES, leaf


def test_every_package_is_listed() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(ALLOWED)


def test_schemas_import_nothing_heavy() -> None:
    heavy = {"torch", "zarr", "numpy", "cv2", "transformers", "tensorstore"}
    for file in sorted(PACKAGE.rglob("config.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            roots = []
            if isinstance(node, ast.ImportFrom) and node.module:
                roots = [node.module.split(".")[0]]
            elif isinstance(node, ast.Import):
                roots = [alias.name.split(".")[0] for alias in node.names]
            assert not heavy & set(roots), file
