import ast
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import TinyWorld

import vipocc.training
from vipocc.errors import CheckpointError, DeviceError, MissingInputError, NonFiniteError
from vipocc.model.checkpoint import find_checkpoint, read_weights
from vipocc.model.network import ViPOcc
from vipocc.training import session, trainer
from vipocc.training.failure import reproduce
from vipocc.training.metrics import read_metrics
from vipocc.training.packing import Packed
from vipocc.training.seeds import torch_generator
from vipocc.training.session import start_training
from vipocc.training.step import prepare, training_losses
from vipocc.training.stream import load_packed
from vipocc.training.trainer import Trainer

Say = Callable[[str], None]


def digest(folder: Path) -> dict[str, str]:
    """Content of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def equal_weights(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same bits; the order of metadata in the file is arbitrary."""
    a, b = read_weights(first), read_weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses_of(run: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(run / "metrics.jsonl") if "loss" in line]


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training be interrupted when it begins a step."""
    go_on = Trainer._optimise

    def optimise(self: Trainer, raw: dict[str, torch.Tensor]) -> Any:
        if self.step + 1 == step:
            raise KeyboardInterrupt
        return go_on(self, raw)

    monkeypatch.setattr(Trainer, "_optimise", optimise)


@pytest.fixture(scope="session")
def said(undisturbed: Path) -> list[str]:
    """What the undisturbed run said."""
    return (undisturbed.parent / "said.txt").read_text().splitlines()


def test_the_first_lines_say_what_is_assumed(said: list[str]) -> None:
    assert "12 samples of 8 views (1 left out: no frame follows), 6 steps of 2 on cpu (float32 networks)" in said[0]
    assert said[1].endswith("runs/undisturbed; validation on 2 val frames: rendered depth, occupancy, refined depth")


def test_a_run_writes_what_it_promises(undisturbed: Path) -> None:
    assert {path.name for path in undisturbed.iterdir()} == {"config.yaml", "metrics.jsonl", "checkpoints"}
    lines = read_metrics(undisturbed / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    for line in steps:
        assert line.keys() >= {
            "step", "samples", "loss", "loss/rgb", "loss/depth", "loss/temporal", "gradient_norm", "learning_rate",
            "samples_per_second", "step_ms", "data_wait", "peak_memory_gib",
        }  # fmt: skip
        assert all(math.isfinite(value) for value in line.values())
        assert 0 <= line["data_wait"] <= 1
        weighted = line["loss/rgb"] + 0.0025 * line["loss/depth"] + 0.005 * line["loss/temporal"]
        assert line["loss"] == pytest.approx(weighted, rel=1e-5)
    assert [line["learning_rate"] for line in steps] == pytest.approx([1e-3] * 4 + [1e-4] * 2)
    measured = [line for line in lines if "loss" not in line]
    assert [line["step"] for line in measured] == [3, 6]
    for line in measured:
        assert line.keys() >= {"rendered_depth/abs_rel", "refined_depth/abs_rel", "occupancy/balanced_accuracy"}
    values = {line["step"]: line["rendered_depth/abs_rel"] for line in measured}
    best = find_checkpoint(undisturbed.parent, "best", "undisturbed")
    assert best.name == f"step_{min(values, key=values.__getitem__)}"
    assert find_checkpoint(undisturbed.parent, "last", "undisturbed").name == "step_6"


def test_a_checkpoint_loads_for_inference_and_names_its_configuration(
    undisturbed: Path, shared_world: TinyWorld
) -> None:
    from vipocc import config as configuration

    checkpoint = undisturbed / "checkpoints" / "step_6"
    model = ViPOcc.from_pretrained(checkpoint)
    assert model.encode(torch.rand(1, 3, 64, 96)).shape == (1, 8, 64, 96)
    saved = configuration.load(base=configuration.read(checkpoint / "config.yaml"))
    assert saved.model_copy(update={"camera": None}) == shared_world.config


def test_every_trainable_tensor_moves(undisturbed: Path, shared_world: TinyWorld) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(trainer.derived_seed(0, "weights"))
        before = ViPOcc(shared_world.config.model, "centre")
    after = read_weights(undisturbed / "checkpoints" / "step_6")
    still = [name for name, value in before.named_parameters() if torch.equal(value, after[name])]
    assert not still


def test_resuming_is_bitwise_exact(
    undisturbed: Path, world: TinyWorld, quiet: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stop_at(4, patched)
        with pytest.raises(KeyboardInterrupt):
            start_training(world.workspace, world.config, name="again", say=quiet)
    torch.rand(7)  # nothing may hang on the global generator
    said: list[str] = []
    start_training(world.workspace, None, resume="latest", say=said.append)
    again = world.workspace.runs / "again"
    assert said[0].startswith("going on with run again from step_3 by its own configuration: preset 'demo'")
    assert losses_of(again) == losses_of(undisturbed)
    for name in ("step_6", "step_4"):
        first, second = undisturbed / "checkpoints" / name, again / "checkpoints" / name
        assert equal_weights(first, second)
        states = [torch.load(folder / "state.pt", weights_only=True) for folder in (first, second)]
        assert states[0]["samples"] == states[1]["samples"]
        for key, value in states[0]["optimiser"]["state"].items():
            assert all(torch.equal(value[name], states[1]["optimiser"]["state"][key][name]) for name in value)


def test_resuming_takes_overrides_on_top_and_says_what_they_change(undisturbed: Path, world: TinyWorld) -> None:
    import shutil

    shutil.copytree(undisturbed, world.workspace.runs / "longer")
    with pytest.raises(CheckpointError, match=r"this run is complete: 6 steps.*--steps N"):
        start_training(world.workspace, None, resume="longer", say=lambda text: None)
    said: list[str] = []
    over = ("training.max_steps=5", "training.batch_size=3")
    summary = start_training(world.workspace, None, resume="longer", overrides=over, say=said.append)
    assert summary.steps == 7, "12 of 15 samples were seen: one step of three is left"
    assert "from step_6 by its own configuration with training.max_steps=5, training.batch_size=3 on top:" in said[0]


def test_a_change_of_batch_size_is_said(
    undisturbed: Path, world: TinyWorld, quiet: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(undisturbed, world.workspace.runs / "other")
    over = ("training.max_steps=5", "training.batch_size=3")
    start_training(world.workspace, None, resume="other", overrides=over, say=quiet)
    assert "training.batch_size was 2 and is now 3" in capsys.readouterr().err


def test_a_damaged_newest_checkpoint_is_passed_over(
    undisturbed: Path, world: TinyWorld, quiet: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(undisturbed, world.workspace.runs / "hurt")
    last = world.workspace.runs / "hurt" / "checkpoints" / "step_6"
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    start_training(world.workspace, None, resume="hurt", say=quiet)
    assert "step_6: model.safetensors has another size" in capsys.readouterr().err
    assert equal_weights(last, undisturbed / "checkpoints" / "step_6"), "step 6 came again and was the same"


def test_loss_falls_on_fixed_rays(shared_world: TinyWorld) -> None:
    from test_samples import open_samples

    from vipocc.training.stream import RunBatches, load_batches

    samples = open_samples(shared_world)
    raw = next(iter(load_batches(samples, RunBatches(0, 2, 2), workers=0, prefetch=1)))
    torch.manual_seed(0)
    model = ViPOcc(shared_world.config.model, "centre").train()
    guarded = trainer.GuardedAdam(model, torch.device("cpu"))
    values = []
    for step in range(11):
        batch = prepare(raw, shared_world.config.training, torch.device("cpu"))
        jitter = torch_generator(torch.device("cpu"), 0, "jitter", 0)
        terms = training_losses(model, batch, shared_world.config.training, jitter=jitter)
        values.append({name: float(term.detach()) for name, term in terms.items()})
        guarded.update(step, terms["total"], 1e-3)
    assert values[-1]["total"] < 0.9 * values[0]["total"]
    assert values[-1]["depth"] < values[0]["depth"]


def test_the_official_profile_trains(world: TinyWorld, quiet: Say) -> None:
    from tiny_world import OVERRIDES

    from vipocc import config as configuration

    over = (*OVERRIDES, "data.convention=centre", "data.resize=area", "training.max_steps=2")
    config = configuration.load("demo", profile="official", overrides=over)
    assert config.training.shared_patches
    assert config.training.loss.temporal_kind == "official"
    summary = start_training(world.workspace, config, say=quiet)
    assert math.isfinite(summary.figures["loss"])


def test_colour_jitter_tensorboard_and_a_branchless_model(world: TinyWorld, quiet: Say) -> None:
    config = world.configured(
        "training.colour_jitter=true", "training.tensorboard=true", "training.max_steps=2", "training.flip=none",
        "training.loss.depth=0", "training.loss.temporal=0", "training.sample_jitter=false",
    )  # fmt: skip
    summary = start_training(world.workspace, config, name="plain", say=quiet)
    assert "loss/depth" not in summary.figures
    assert list((world.workspace.runs / "plain" / "tensorboard").glob("events*"))


def test_missing_priors_give_pixels_no_gradient_and_no_nan(world: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_samples import open_samples

    from vipocc.training.stream import RunBatches, load_batches

    samples = open_samples(world)
    raw = next(iter(load_batches(samples, RunBatches(0, 2, 2), workers=0, prefetch=1)))
    raw["prior_depth"][:, :, 10:30] = math.nan
    raw["prior_depth"][1, 1] = math.nan
    model = ViPOcc(world.config.model, "centre").train()
    batch = prepare(raw, world.config.training, torch.device("cpu"))
    training_losses(model, batch, world.config.training)["total"].backward()
    for name, value in model.named_parameters():
        assert value.grad is None or bool(torch.isfinite(value.grad).all()), name


def broken_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second sample of one batch come with a calibration that is not a number."""

    def stream(*arguments: Any, **more: Any) -> Iterator[Packed]:
        for at, packed in enumerate(load_packed(*arguments, **more), 1):
            if at == number:
                packed.tensors()["intrinsics"][1] = math.nan
            yield packed

    monkeypatch.setattr(trainer, "load_packed", stream)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_non_finite_loss_stops_with_a_dump_that_reproduces_it(
    world: TinyWorld, quiet: Say, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    before: dict[str, torch.Tensor] = {}
    optimise = Trainer._optimise

    def watched(self: Trainer, parts: Any) -> Any:
        if self.step == 3:
            before.update({name: value.detach().clone() for name, value in self.model.named_parameters()})
        return optimise(self, parts)

    config = world.configured("training.batch_size=4", f"training.accumulate={accumulate}")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_optimise", watched)
        broken_at(4 if accumulate == 1 else 8, patched)
        with pytest.raises(NonFiniteError) as error:
            start_training(world.workspace, config, name="broken", say=quiet)
    run = world.workspace.runs / "broken"
    dump = run / "nonfinite-step_4"
    assert error.value.exit_code == 1
    assert "step 4 is not a finite number" in str(error.value)
    assert f"vipocc train --reproduce {dump}" in str(error.value)
    kept = read_weights(dump)
    assert all(torch.equal(value, kept[name]) for name, value in before.items())
    again = reproduce(dump, torch.device("cpu"))
    assert not again.finite
    assert math.isnan(again.losses["total"])
    assert again.parameters
    assert all(name in str(error.value) for name in again.alone)
    guilty = [number for number, value in enumerate(again.alone.values()) if not math.isfinite(value)]
    assert guilty == [1 if accumulate == 1 else 3], "the sample with the broken calibration, and no other"
    assert (run / "checkpoints" / "step_3").is_dir()
    assert start_training(world.workspace, None, resume="broken", say=quiet).steps == 6


def test_a_dump_is_done_again_from_the_command_line(
    world: TinyWorld, quiet: Say, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vipocc.cli import run

    with monkeypatch.context() as patched:
        broken_at(1, patched)
        with pytest.raises(NonFiniteError):
            start_training(world.workspace, world.config, name="broken", say=quiet)
    dump = world.workspace.runs / "broken" / "nonfinite-step_1"
    assert run(["train", "--reproduce", str(dump), "--device", "cpu"]) == 1
    told = capsys.readouterr()
    assert "step 1 again: total nan" in told.out
    assert "samples whose own loss is not finite: drive/image_0" in told.out
    assert "step 1 is not finite here either" in told.err
    content = torch.load(dump / "batch.pt", weights_only=True)
    content["parts"][0]["raw"]["intrinsics"][1] = content["parts"][0]["raw"]["intrinsics"][0]
    torch.save(content, dump / "batch.pt")
    assert run(["train", "--reproduce", str(dump), "--device", "cpu"]) == 0
    assert "here loss and gradients are finite" in capsys.readouterr().out
    (dump / "batch.pt").write_bytes(b"none")
    assert run(["train", "--reproduce", str(dump)]) == 2
    assert "this is no dump of a step" in capsys.readouterr().err


def test_running_out_of_memory_names_the_options(world: TinyWorld, quiet: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(trainer, "add_gradients", too_large)
    named = (
        r"out of memory on cpu in step 1.*raise training\.accumulate \(now 1\).*training\.batch_size.*training\.patches"
    )
    with pytest.raises(DeviceError, match=named):
        start_training(world.workspace, world.config, say=quiet)
    with pytest.raises(DeviceError) as error:
        start_training(world.workspace, world.configured("training.accumulate=2"), say=quiet)
    assert "accumulate" not in str(error.value), "parts of one sample cannot be cut further"


@pytest.mark.parametrize("fault", ["device", "dtype", "priors", "run", "manifest"])
def test_what_cannot_work_is_refused_before_anything_is_written(world: TinyWorld, quiet: Say, fault: str) -> None:
    if fault == "priors":
        world.workspace.store("anchors").rename(world.workspace.path / "elsewhere")
    if fault == "manifest":
        world.workspace.manifest.unlink()
    before = digest(world.workspace.path)
    arguments: dict[str, Any] = {"config": world.config, "say": quiet}
    if fault == "device":
        if torch.cuda.is_available():
            pytest.skip("this machine has the device that is asked for")
        arguments["device"], kind, text = "cuda", DeviceError, "no CUDA device"
    elif fault == "dtype":
        arguments["config"] = world.configured("training.dtype=bfloat16")
        arguments["device"], kind, text = "cpu", DeviceError, "bfloat16 needs a CUDA device"
    elif fault == "run":
        arguments["resume"], kind, text = "latest", MissingInputError, "no run here has a checkpoint"
    else:
        kind, text = MissingInputError, "vipocc priors sam --split train"
    with pytest.raises(kind, match=text):
        start_training(world.workspace, **arguments)
    assert digest(world.workspace.path) == before


def test_training_never_meets_exact_truth(world: TinyWorld, quiet: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by name in its code nor at run time, on a dataset whose truth folder is not there."""
    for path in Path(vipocc.training.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = {
                ast.Import: lambda n: [alias.name for alias in n.names],
                ast.ImportFrom: lambda n: [n.module or "", *(alias.name for alias in n.names)],
                ast.Attribute: lambda n: [n.attr],
                ast.Name: lambda n: [n.id],
            }.get(type(node))
            words = {
                word for name in (named(node) if named else []) for word in name.lower().replace("_", ".").split(".")
            }
            assert not words & {"exact", "exacttruth"}, f"{path.name} names the exact truth"
    from vipocc.data_manifests.synthetic import exact

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("training opened the exact truth")

    monkeypatch.setattr(exact.ExactTruth, "__init__", opened)
    monkeypatch.setitem(sys.modules, "vipocc.data_manifests.synthetic.exact", None)
    assert not (world.workspace.root / "exact").exists()
    summary = start_training(world.workspace, world.configured("training.max_steps=2"), say=quiet)
    assert "occupancy/balanced_accuracy" in summary.figures


def test_the_command_line(world: TinyWorld, capsys: pytest.CaptureFixture[str]) -> None:
    from tiny_world import OVERRIDES

    from vipocc.cli import run

    options = [part for text in OVERRIDES for part in ("-o", text)]
    before = digest(world.workspace.path)
    assert run(["train", "-C", str(world.workspace.path), "-o", "training.batchsize=2"]) == 2
    assert "did you mean 'training.batch_size'?" in capsys.readouterr().err
    assert digest(world.workspace.path) == before
    assert (
        run(["train", "-C", str(world.workspace.path), *options, "--steps", "2", "--run", "mine", "--device", "cpu"])
        == 0
    )
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("training: ")
    assert "preset 'demo', profile paper" in out[0]
    assert out[-2].startswith("trained 2 steps: loss ")
    assert run(["train", "-C", str(world.workspace.path), "--resume", "--steps", "3"]) == 0
    assert "training.max_steps=3 on top" in capsys.readouterr().out
    assert run(["train", "-C", str(world.workspace.path), "--resume", "none"]) == 2
    assert "there is no run 'none'" in capsys.readouterr().err
    assert json.loads((world.workspace.runs / "mine" / "metrics.jsonl").read_text().splitlines()[-2])["step"] == 3


def test_precision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert session._precision("auto", "cuda:0") == "bfloat16"
    assert session._precision("auto", "cpu") == "float32"
    assert session._precision("float32", "cuda:0") == "float32"
