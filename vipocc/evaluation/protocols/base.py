"""What every protocol has: a frozen, versioned description whose digest stands in every report."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """Base: everything that decides a number is a field."""

    name: str
    version: int

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the description."""
        text = json.dumps(self.describe(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
