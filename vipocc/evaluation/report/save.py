"""Reports on disk: a folder that is there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

from vipocc.errors import StoreError
from vipocc.evaluation.report.content import Report
from vipocc.evaluation.report.provenance import created


def save(report: Report, reports: Path) -> Path:
    """Write a report into a new folder of `reports`, named by time so that names sort, and return it."""
    if not report.created:
        report.created = created()
    files: dict[str, str | bytes] = {
        **report.attachments,
        "report.json": json.dumps(report.as_dict(), indent=1, allow_nan=False) + "\n",
        "table.md": report.markdown(),
        "report.html": report.html(),
    }
    if report.configuration is not None:
        files["config.yaml"] = yaml.safe_dump(dict(report.configuration), sort_keys=False)
    return write_folder(reports, f"{report.kind}-{report.protocol['name']}-{report.split}", files)


def write_folder(reports: Path, name: str, files: Mapping[str, str | bytes]) -> Path:
    """Write files, text in UTF-8, into a new folder `<time>-<name>` of `reports`: aside, then renamed as a whole.

    Raises:
        StoreError: the disk is full or may not be written; nothing is left then.
    """
    base = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    aside = reports / f".partial-{os.getpid()}-{time.time_ns()}"
    try:
        aside.mkdir(parents=True)
        for file, content in files.items():
            (aside / file).parent.mkdir(parents=True, exist_ok=True)
            (aside / file).write_bytes(content.encode() if isinstance(content, str) else content)
        for number in range(1, 1000):
            folder = reports / (base if number == 1 else f"{base}-{number:03d}")
            try:
                os.rename(aside, folder)
                return folder
            except OSError as error:
                # Another report of the same second: a folder that holds something is never replaced.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
        raise OSError(errno.EEXIST, "a thousand reports of one second")
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StoreError(
            f"the report cannot be written ({error.strerror})", where=reports, fix="make room, or mend the permissions"
        ) from None
