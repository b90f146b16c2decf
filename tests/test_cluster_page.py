"""docs/cluster.md: its commands exist, its scripts are those of deploy/, its figures follow from what was measured."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from hashlib import blake2b
from pathlib import Path

import click
import pytest
from command_lines import refuse_unknown
from workspace_tree import successful

from vipocc.cli import cli as vipocc
from vipocc.progress import duration

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cluster.md").read_text()
SCRIPTS = sorted((ROOT / "deploy").glob("*.sh"))
RESULTS = ROOT / "benchmarks" / "results"
IMAGES, GPUS = 60_000, 8


def commands(text: str) -> list[str]:
    """The command lines of a page or a script that call vipocc or dask, continued lines joined."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    # After what an indented or a script's line may begin with: variables, `run`, `srun` and its options.
    before = r"(?:    |(?=run |srun |dask ))(?:[A-Z_]+=\S+ |run |srun (?:--\S+ )+)?"
    start = re.compile(rf"^{before}((?:vipocc|dask worker|dask scheduler) .*?)(?: &)?$")
    return sorted({match[1].split(" #")[0] for line in lines if (match := start.match(line))})


def program(words: list[str]) -> tuple[click.Command, list[str]]:
    if words[0] == "vipocc":
        return vipocc, words[1:]
    from distributed.cli.dask_scheduler import main as scheduler
    from distributed.cli.dask_worker import main as worker

    return {"worker": worker, "scheduler": scheduler}[words[1]], words[2:]


def test_there_are_commands_to_look_at() -> None:
    assert len(commands(PAGE)) > 18
    assert all(len(commands(path.read_text())) >= 2 for path in SCRIPTS)


@pytest.mark.parametrize("line", sorted({*commands(PAGE), *(c for p in SCRIPTS for c in commands(p.read_text()))}))
def test_every_command_line_parses(line: str) -> None:
    words = [word for word in shlex.split(line) if word != "$@"]
    command, arguments = program(words)
    refuse_unknown(command, arguments, words[0])


def test_an_option_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        refuse_unknown(vipocc, ["priors", "depth", "--gpus", "8"], "vipocc")
    with pytest.raises(click.UsageError, match="No such command"):
        refuse_unknown(vipocc, ["priors", "depths"], "vipocc")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_shown_are_those_of_deploy(path: Path) -> None:
    assert f"```bash\n{path.read_text().rstrip()}\n```" in PAGE
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert os.access(path, os.X_OK)


def test_the_figures_follow_from_what_was_measured() -> None:
    prepared = json.loads((RESULTS / "prepare_epyc.json").read_text())["measured"][0]["steady"]["prepare_frames_per_s"]
    snog = json.loads((RESULTS / "snog_epyc.json").read_text())
    table = (RESULTS / "grounded_sam_h100.md").read_text()
    rates = {
        name: [float(figure) for figure in re.search(rf"\| {name}[^|]*\| ([\d.]+) \| ([\d.]+) ", table).groups()]  # type: ignore[union-attr]
        for name in ("detector", "SAM, square")
    }
    published, ours = ([rate[k] for rate in rates.values()] for k in (0, 1))
    both, slow = (1 / sum(1 / rate for rate in of) for of in (ours, published))
    anchors = 1 / (25e-3 * snog["draw_ms"] + 1e-3 * snog["mixture_ms"])
    for rate in (prepared, *ours, both, slow, anchors):
        shown = f"| {duration(IMAGES / rate)} | {duration(IMAGES / rate / GPUS)} |"
        assert shown in PAGE, f"{rate:.4g} images a second: {shown}"
    assert f"{IMAGES:,} / 64 = {-(-IMAGES // 64)} units" in PAGE


# The array script, with stand-ins for vipocc and Slurm ---------------------------------------------------------------


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A folder with commands that note how they were called; `vipocc` ends with the code in `ends`, or on SIGTERM."""
    (tmp_path / "ends").write_text("0")
    stand_in = """#!/bin/bash
echo "vipocc $*" >> {0}/calls
if [ -f {0}/wait ]; then
    trap 'sleep 0.2; echo finished >> {0}/calls; exit 143' TERM
    touch {0}/ready
    sleep 30 2> /dev/null & wait
fi
exit "$(cat {0}/ends)"
"""
    (tmp_path / "vipocc").write_text(stand_in.format(tmp_path))
    (tmp_path / "scontrol").write_text(f'#!/bin/bash\necho "scontrol $*" >> {tmp_path}/calls\n')
    for name in ("vipocc", "scontrol"):
        (tmp_path / name).chmod(0o755)
    return tmp_path


def start(stage: Path, *arguments: str) -> subprocess.Popen[bytes]:
    slurm = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "2"}
    environment = {**os.environ, **slurm, "PATH": f"{stage}:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "deploy" / "slurm-array.sh"), *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def test_a_task_does_its_part_of_every_prior(stage: Path) -> None:
    task = start(stage, "/shared/work", "--dtype", "bfloat16")
    assert task.wait(30) == 0
    task.communicate()
    assert (stage / "calls").read_text().splitlines() == [
        f"vipocc priors {kind} -C /shared/work --no-auto --shard 3/8 --dtype bfloat16" for kind in ("depth", "sam")
    ]


def test_a_task_that_fails_ends_with_its_code(stage: Path) -> None:
    (stage / "ends").write_text("2")
    task = start(stage, "/shared/work")
    assert task.wait(30) == 2
    task.communicate()
    assert len((stage / "calls").read_text().splitlines()) == 1, "nothing after it, and not queued again"


def test_a_task_out_of_time_finishes_and_goes_back_into_the_queue(stage: Path) -> None:
    (stage / "wait").touch()
    task = start(stage, "/shared/work")
    deadline = time.monotonic() + 30
    while not (stage / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    task.send_signal(signal.SIGTERM)
    assert task.wait(30) == 143
    task.communicate()
    assert (stage / "calls").read_text().splitlines()[1:] == ["finished", "scontrol requeue 77_3"]


def test_a_script_without_a_workspace_says_so(stage: Path) -> None:
    task = start(stage)
    _, errors = task.communicate(timeout=30)
    assert task.returncode != 0
    assert b"usage: sbatch slurm-array.sh WORKSPACE" in errors


# Both scripts for real, on a world of some frames ---------------------------------------------------------------------

WORLD = [
    "data.world.train_drives=1", "data.world.train_frames=5", "data.world.val_frames=3", "data.world.test_frames=3",
    "data.world.scale=0.12", "data.world.lidar_points=640", "data.world.antialias=false", "data.world.shadows=false",
    "data.fisheye=false",
]  # fmt: skip


@pytest.mark.slow
def test_both_scripts_make_the_same_stores(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("array", "dask")]
    overrides = [part for text in WORLD for part in ("-o", text)]
    successful("init", "--dataset", "synthetic", "-C", str(folders[0]), *overrides)
    successful("data", "prepare", "--kinds", "frames", "--cameras", "perspective", "-C", str(folders[0]))
    shutil.copytree(*folders, copy_function=shutil.copy2)
    # srun, here: the command after its options, once.
    (tmp_path / "srun").write_text('#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PARTS": "3", "SLURM_NTASKS": "1", "SLURM_JOB_ID": "77"}
    for task in range(3):
        array = {**environment, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_JOB_ID": "77"}
        subprocess.run(["bash", str(ROOT / "deploy" / "slurm-array.sh"), str(folders[0])], env=array, check=True)
    script = str(ROOT / "deploy" / "slurm-dask.sh")
    told = subprocess.run(["bash", script, str(folders[1])], env=environment, check=True, capture_output=True)
    assert b"dask: 1 workers" in told.stderr
    assert not list(folders[1].glob("dask-*.json"))
    made = [shards(folder / "stores" / "synthetic") for folder in folders]
    assert {path.split("/")[0] for path in made[0]} == {
        f"{k}.zarr" for k in ("frames", "depth", "instances", "anchors")
    }
    assert len(made[0]) > 12
    assert made[0] == made[1]
    assert successful("stores", "verify", "-C", str(folders[1])).out.count(": sound") == 4


def shards(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "/c/" in path.as_posix())
    return {path.relative_to(folder).as_posix(): blake2b(path.read_bytes()).hexdigest() for path in files}
