"""The 3D page in a real browser: it draws what it is given, and says what it cannot draw."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vipocc.apps.view.page import shell, standalone
from vipocc.apps.view.scene import Cubes, Lines, Picture, Points, Scene

pytestmark = pytest.mark.slow

RED, GREEN, BLUE = (230, 20, 20), (20, 200, 20), (20, 20, 230)


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: .ci/run installs it")
        pytest.skip("no Chromium on this machine")
    return found


def run_browser(browser: str, page: Path, *words: str) -> str:
    done = subprocess.run(
        [
            browser, "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
            "--window-size=900,600", "--hide-scrollbars", "--virtual-time-budget=6000",
            f"--user-data-dir={page.parent / 'profile'}", *words, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def picture_of(browser: str, page: Path) -> np.ndarray:
    there = page.with_suffix(".png")
    run_browser(browser, page, f"--screenshot={there}")
    with Image.open(there) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where pixels have a colour's hue: lit from one side, every channel is scaled alike."""
    wanted = np.array(colour) / np.linalg.norm(colour)
    length = np.linalg.norm(pixels, axis=-1)
    return np.asarray((pixels @ wanted > 0.985 * length) & (length > 60))


def cube(
    centre: tuple[float, float, float], colour: tuple[int, int, int], name: str = "cubes", shown: bool = True
) -> Cubes:
    return Cubes(name, np.array([centre]), np.array([colour], np.uint8), (2.0, 2.0, 2.0), shown=shown)


def test_every_kind_of_layer_is_drawn_where_it_belongs(browser: str, tmp_path: Path) -> None:
    # Seen from above with the view's target at z = 12: right is right, far is up.
    row = np.stack([np.linspace(-4, 4, 200), np.zeros(200), np.full(200, 17.0)], axis=1)
    corners = np.array([[-2.0, 0, 14], [2, 0, 14], [2, 0, 11], [-2, 0, 11]])
    scene = Scene(
        "all layers",
        [
            cube((6, 0, 12), RED),
            Points("points", row, np.tile(np.array(GREEN, np.uint8), (200, 1))),
            Lines("lines", np.array([[[-4.0, 0, 5], [4.0, 0, 5]]]), BLUE),
            Picture("image", np.full((30, 40, 3), (200, 30, 200), np.uint8), corners),
            cube((-2, 0, 8), (250, 250, 0), name="hidden", shown=False),
        ],
        {"why": "a test"},
    )
    page = tmp_path / "page.html"
    page.write_text(standalone([scene], view="above"))
    pixels = picture_of(browser, page)
    where = {}
    for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE), ("image", (200, 30, 200))):
        # A line is a pixel wide, and smoothed: all that is left of its colour is a tint.
        blueish = (pixels[..., 2] - pixels[..., 0] > 40) & (pixels[..., 2] - pixels[..., 1] > 40)
        rows, columns = np.nonzero((blueish if name == "blue" else near(pixels, colour))[:, 300:])
        assert len(rows) > 20, f"{name} is not drawn"
        where[name] = (rows.mean(), columns.mean() + 300)
    assert not near(pixels, (250, 250, 0))[:, 300:].any(), "a layer that is not shown is not drawn"
    assert where["green"][0] < where["image"][0] < where["blue"][0], "far is up"
    assert where["red"][1] > where["image"][1] + 80, "right is right"
    assert abs(where["red"][0] - 300) < 15, "the target is in the middle"
    text = run_browser(browser, page, "--dump-dom")
    assert 'data-state="ready"' in text
    assert text.count('class="layer"') == 5
    assert "a test" in text


def test_what_lies_in_front_hides_what_lies_behind(browser: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    scene = Scene("depth", [cube((0, 0, 12), GREEN, "behind"), cube((0, -4, 12), RED, "before")])
    page.write_text(standalone([scene], view="above"))
    pixels = picture_of(browser, page)
    assert near(pixels, RED)[290:310, 440:460].all()
    assert near(pixels, GREEN).sum() < 30


def test_a_frame_that_cannot_be_had_is_said(browser: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(shell("drive", 3))  # asks a server that is not there
    text = run_browser(browser, page, "--dump-dom")
    assert 'data-state="failed"' in text
    assert '<p id="trouble" role="alert"></p>' not in text
