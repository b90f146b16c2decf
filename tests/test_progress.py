from __future__ import annotations

import pytest

from vipocc import progress as module
from vipocc.progress import duration, progress, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (8.4, "8 s"), (125, "2 min 5 s"), (3600, "1 h"), (11400, "3 h 10 min"), (187200, "2 d 4 h")],
)
def test_durations_read_as_people_write_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(12, "12 B"), (75_208, "75 kB"), (4_820_000_000, "4.8 GB")])
def test_sizes_read_as_people_write_them(count: float, text: str) -> None:
    assert size(count) == text


def test_plain_lines_give_rate_time_left_and_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PLAIN_INTERVAL", -1.0)
    with progress("Depth", 4) as bar:
        for step in range(4):
            bar.advance(loss=0.5 + step)
    lines = capsys.readouterr().err.splitlines()
    assert "1/4 frames" in lines[0]
    assert "left" in lines[0]
    assert "loss 0.5" in lines[0]
    assert lines[-1].startswith("Depth: 4/4 frames in 0 s")


def test_an_error_is_not_reported_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), progress("Depth", 4) as bar:
        bar.advance()
        raise RuntimeError
    assert capsys.readouterr().err == "Depth: 1/4 frames in 0 s, stopped\n"
