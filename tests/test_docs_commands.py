"""Every `vipocc` command that the documentation shows exists, with its options and their values."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from command_lines import refuse_unknown

from vipocc.cli import cli as vipocc

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def shown(page: Path) -> set[str]:
    """Return the commands of a page: lines of code blocks, and inline code of more than a command's name."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    fenced = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    blocks = re.findall(r"^ {4}(?:\$ )?(vipocc [^\n]+)$", text, re.MULTILINE)
    blocks += re.findall(r"^(?:\$ )?(vipocc [^\n]+)$", fenced, re.MULTILINE)
    inline = re.findall(r"`(vipocc [^`\n]+)`", text)
    return {line.split(" #")[0].split("  ")[0].strip() for line in (*blocks, *inline)}


LINES = sorted({(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in shown(page)})


@pytest.mark.parametrize(("page", "line"), LINES)
def test_it_parses(page: str, line: str) -> None:
    words = shlex.split(re.sub(r"(--[\w-]+|\S+)(\|\S+)+", r"\1", line))  # of alternatives, the first
    words = ["1" if word == "N" else word for word in words[1:] if word not in ("...", "…", "|")]
    if "COMMAND" in words:
        return
    try:
        refuse_unknown(vipocc, [word for word in words if not word.startswith("[")], "vipocc")
    except (click.MissingParameter, click.BadOptionUsage, click.exceptions.NoArgsIsHelpError, click.exceptions.Exit):
        pass  # a command or an option that is named without what it needs, or its help
    except click.BadParameter as error:
        if "does not exist" not in error.message:  # a place that a reader fills in has no file here
            raise


def test_a_wrong_value_is_noticed() -> None:
    with pytest.raises(click.BadParameter, match="tset"):
        test_it_parses("", "vipocc eval depth --split tset")
    with pytest.raises(click.NoSuchOption):
        test_it_parses("", "vipocc train --devices all")


def test_there_are_many() -> None:
    assert len(LINES) > 120
