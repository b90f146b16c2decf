"""One thing that was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["good", "note", "fault"]
SIGNS: dict[State, str] = {"good": "ok", "note": "--", "fault": "!!"}


@dataclass(frozen=True)
class Finding:
    """What was found, and where something is wrong or missing, what mends it."""

    section: str
    name: str
    text: str
    state: State = "note"
    """`good`; `note`: worth knowing, perhaps something to come; `fault`: does not work like this."""
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def as_text(findings: Sequence[Finding]) -> str:
    """Return the findings by section, one line each."""
    lines: list[str] = []
    width = max((len(one.name) for one in findings), default=0)
    for section in dict.fromkeys(one.section for one in findings):
        lines += ["", section] if lines else [section]
        for one in findings:
            if one.section == section:
                way_out = f"; {one.fix}" if one.fix else ""
                lines.append(f"  {SIGNS[one.state]} {one.name:<{width}}  {one.text}{way_out}")
    return "\n".join(lines)
