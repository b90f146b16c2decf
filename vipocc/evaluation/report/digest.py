"""The digest of the ground truth that an evaluation compared with."""

from __future__ import annotations

import hashlib
from typing import Any

from vipocc.evaluation.report.content import Frame


class TruthDigest:
    """Digest of the ground truth that an evaluation used, in the order it used it, as a whole and of each frame."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.frames: dict[Frame, str] = {}
        """First 12 hexadecimal digits of each frame's own digest: what two reports share can so be told."""

    def add(self, frame: Frame, *arrays: Any) -> None:
        """Take in a frame and its arrays."""
        single = hashlib.sha256()
        self._hash.update(f"{frame.sequence}/{frame.camera}/{frame.frame_id}".encode())
        for array in arrays:
            for part in (f"{array.dtype}{array.shape}".encode(), array.tobytes()):
                self._hash.update(part)
                single.update(part)
        self.frames[frame] = single.hexdigest()[:12]

    @property
    def value(self) -> str:
        """First 16 hexadecimal digits."""
        return self._hash.hexdigest()[:16]
