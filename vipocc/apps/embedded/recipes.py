"""How each of the three models is trained, and what one run of all of them does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from vipocc.apps.embedded.architectures import build
from vipocc.apps.embedded.batches import Batches
from vipocc.apps.embedded.check import check, seconds_an_image
from vipocc.apps.embedded.depth import DepthTask
from vipocc.apps.embedded.detector import DetectorTask
from vipocc.apps.embedded.pictures import Pictures, take_pictures
from vipocc.apps.embedded.saving import RECORD, save_model
from vipocc.apps.embedded.segmenter import SegmenterTask
from vipocc.apps.embedded.sheet import write_sheet
from vipocc.apps.embedded.training import Plan, train
from vipocc.apps.embedded.worlds import HELD_OUT_SEED, TRAINING_SEED, held_out_shoots, training_shoots
from vipocc.errors import VipoccError
from vipocc.priors.embedded import MODELS, EmbeddedModel
from vipocc.progress import duration, say

T = TypeVar("T")

TASKS: dict[EmbeddedModel, Any] = {"depth": DepthTask, "detector": DetectorTask, "segmenter": SegmenterTask}

PLANS: dict[EmbeddedModel, Plan] = {
    "depth": Plan(steps=10_000, batch=32, rate=1e-3),
    "detector": Plan(steps=8_000, batch=32, rate=6e-4),
    "segmenter": Plan(steps=8_000, batch=16, rate=8e-4),
}
"""The published recipe; on one H100 the time decides how many of the steps are done."""

_AROUND = 110.0
"""Seconds kept for what is before and after the training: starting processes, measuring, packing."""


def shoot(folder: Path, drives: int, rows: int, jobs: int) -> dict[str, Any]:
    """Take the training and the held-out pictures into `folder`, if they are not there; return what was taken."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "pictures.json"
    asked = {"drives": drives, "rows": rows, "seed": TRAINING_SEED, "held_out_seed": HELD_OUT_SEED}
    if record.is_file():
        held: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if {key: held[key] for key in asked} == asked:
            return held
    start, few = time.perf_counter(), max(1, drives // 16)
    train_pictures = take_pictures(training_shoots(drives, rows), jobs)
    held_out = held_out_shoots("val", few, max(2, rows // 2)) + held_out_shoots("test", few, max(2, rows // 2))
    test_pictures = take_pictures(held_out, jobs)
    train_pictures.save(folder / "train.npz")
    test_pictures.save(folder / "held_out.npz")
    counts = {"pictures": len(train_pictures.image), "held_out": len(test_pictures.image)}
    made = {**asked, **counts, "seconds": round(time.perf_counter() - start, 1)}
    record.write_text(json.dumps(made) + "\n", encoding="utf-8")
    return made


def train_model(
    name: EmbeddedModel, plan: Plan, pictures: Path, folder: Path, device: str, commit: str
) -> dict[str, Any]:
    """Train one model on the pictures in `pictures`, write it to `folder/NAME`, measure it; return its record."""
    network = build(name, plan.seed)
    task = TASKS[name](network, device)
    train_pictures = Pictures.load(pictures / "train.npz")
    batches = Batches(train_pictures, plan.batch, plan.seed, device)
    with _process_wide(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "high"):
        done = train(task, batches, plan, folder / "runs" / name)
    plain = task.plain() if name == "detector" else network
    record: dict[str, Any] = {
        "model": name,
        "parameters": sum(p.numel() for p in plain.parameters()),
        "plan": asdict(plan),
        "steps": done.step,
        "seconds": round(done.seconds, 1),
        "pictures": json.loads((pictures / "pictures.json").read_text(encoding="utf-8")),
        "commit": commit,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "CPU",
        "versions": {"torch": torch.__version__, "transformers": _version("transformers")},
        "licence": "mit",
    }
    plain.eval()
    save_model(name, plain, folder / name, record)
    # Measured as it will be used: read again from half precision, by the engine.
    held_out = Pictures.load(pictures / "held_out.npz")
    record["metrics"] = check(name, folder / name, held_out, train_pictures, device)
    save_model(name, plain, folder / name, record)
    return record


def run_all(
    out: Path,
    work: Path,
    *,
    drives: int,
    rows: int,
    jobs: int,
    device: str,
    steps: int | None,
    seconds: float | None,
    commit: str,
    batch: int | None = None,
) -> dict[str, Any]:
    """Take the pictures, train the three models side by side, measure them and pack them.

    Args:
        out: gets `embedded.tar` (what belongs into `vipocc/priors/embedded/`), `metrics.json`, `sheet.png`, logs.
        work: for what is only needed on the way; a second run goes on from what lies there.
        drives: training drives.
        rows: stereo pairs of each.
        jobs: processes that render.
        device: of torch.
        steps: at most, instead of the recipes'.
        seconds: that everything may take.
        commit: of the code, for the record.
        batch: pictures of a step instead of the recipes'.

    Raises:
        VipoccError: a training failed; its own output says why.
    """
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    taken = shoot(work / "pictures", drives, rows, jobs)
    say(f"{taken['pictures']} pictures of training drives, {taken['held_out']} held out, after {_since(start)}")
    left = None if seconds is None else max(10.0, seconds - (time.perf_counter() - start) - _AROUND)
    running = {name: _start(name, work, device, steps, left, commit, batch) for name in MODELS}
    failed = [name for name, process in running.items() if process.wait() != 0]
    made = tuple(name for name in MODELS if name not in failed)
    _pack(made, work, out)  # first of all: what is trained is kept, whatever fails from here on
    records: dict[str, Any] = {name: json.loads((work / name / RECORD).read_text(encoding="utf-8")) for name in made}
    _report(out, records, start)
    if failed:
        raise VipoccError(f"the training of {', '.join(failed)} failed", where=work, fix="see its output above")
    held_out = Pictures.load(work / "pictures" / "held_out.npz")
    with _process_wide(torch.get_num_threads, torch.set_num_threads, 2):
        for name in MODELS:
            records[name]["seconds_an_image_2_threads"] = seconds_an_image(name, work / name, held_out)
    summary = {**_report(out, records, start), "bytes": _size(work)}
    (out / "metrics.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    write_sheet(work, held_out, out / "sheet.png", device=device)
    return summary


def with_changes(plan: Plan, steps: int | None, seconds: float | None, batch: int | None) -> Plan:
    """Return a plan with what is given in place of its own."""
    given: Mapping[str, Any] = {"steps": steps, "seconds": seconds, "batch": batch}
    return replace(plan, **{name: value for name, value in given.items() if value is not None})


@contextmanager
def _process_wide(get: Callable[[], T], change: Callable[[T], None], value: T) -> Iterator[None]:
    """Set something of PyTorch's that holds for the whole process, and set it back."""
    before = get()
    change(value)
    try:
        yield
    finally:
        change(before)


def _start(
    name: str, work: Path, device: str, steps: int | None, seconds: float | None, commit: str, batch: int | None
) -> subprocess.Popen[bytes]:
    """Start the training of one model as a process of its own: small networks leave a GPU idle alone."""
    options = {"steps": steps, "seconds": seconds, "batch": batch, "device": device, "commit": commit}
    command = [sys.executable, "-m", "vipocc.apps.embedded", "train", name, "--work", str(work)]
    command += [part for key, value in options.items() if value is not None for part in (f"--{key}", str(value))]
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "4")}
    return subprocess.Popen(command, env={**os.environ, **threads})


def _report(out: Path, records: Mapping[str, Any], start: float) -> dict[str, Any]:
    """Write what is known of the trained models so far, and return it."""
    summary = {"records": dict(records), "seconds": round(time.perf_counter() - start, 1)}
    (out / "metrics.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _pack(names: Sequence[EmbeddedModel], work: Path, out: Path) -> None:
    with tarfile.open(out / "embedded.tar", "w") as archive:
        for name in names:
            archive.add(work / name, arcname=name)
    for name in names:
        log = (work / "runs" / name / "log.jsonl").read_bytes()
        (out / f"{name}.jsonl").write_bytes(log)


def _size(work: Path) -> int:
    return sum(file.stat().st_size for name in MODELS for file in (work / name).iterdir())


def _since(start: float) -> str:
    return duration(time.perf_counter() - start)


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
