"""The documentation: it builds with strict links, and the README leads to pages that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def build(folder: Path, where: Path) -> subprocess.CompletedProcess[str]:
    # Not --quiet: it would keep --strict from counting warnings.
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(
        [*command, "-f", str(folder / "mkdocs.yml"), "-d", str(where)],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


def test_the_site_builds_with_strict_links(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site" / "quickstart.html").read_text(encoding="utf-8")
    assert "vipocc init --dataset synthetic" in page
    assert not re.search(r'<(?:link|script)[^>]+(?:href|src)="https?://', page), "nothing is fetched from elsewhere"


def test_a_link_to_nowhere_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for page in PAGES:
        there = tmp_path / "docs" / page.relative_to(ROOT / "docs")
        there.parent.mkdir(exist_ok=True)
        there.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "docs" / "pictures").mkdir()
    for picture in (ROOT / "docs" / "pictures").iterdir():
        (tmp_path / "docs" / "pictures" / picture.name).write_bytes(picture.read_bytes())
    (tmp_path / "mkdocs.yml").write_text((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), encoding="utf-8")
    with (tmp_path / "docs" / "index.md").open("a", encoding="utf-8") as file:
        file.write("\n[nowhere](nowhere.md)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_front_pages_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target
