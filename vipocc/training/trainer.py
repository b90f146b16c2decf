"""The training loop: read, step, log, validate, save, and go on from where a run was saved."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from vipocc import config as configuration
from vipocc.errors import CheckpointError, DeviceError, NonFiniteError
from vipocc.model import checkpoint as model_checkpoint
from vipocc.model.network import ViPOcc
from vipocc.progress import progress, say
from vipocc.training.metrics import MetricsWriter, peak_memory_gib
from vipocc.training.optimiser import GuardedAdam
from vipocc.training.samples import TrainingSamples
from vipocc.training.schedule import learning_rate, total_samples
from vipocc.training.seeds import derived_seed, torch_generator
from vipocc.training.state import RunState, read_state, write_checkpoint
from vipocc.training.step import prepare, training_losses
from vipocc.training.stream import RunBatches, load_batches

#: Validates the model and returns figures by name.
Validate = Callable[[ViPOcc], Mapping[str, float]]

#: Validation figures of which the smaller is the better.
_SMALLER_IS_BETTER = ("abs_rel", "sq_rel", "rmse", "rmse_log")


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    steps: int
    checkpoint: Path
    figures: dict[str, float]
    """The last line of metrics, validation included."""


class Trainer:
    """Trains one model on one device."""

    def __init__(
        self,
        config: Any,
        samples: TrainingSamples,
        folder: Path,
        *,
        device: torch.device,
        validate: Validate | None = None,
        resume: Path | None = None,
    ) -> None:
        """Build the model and its optimiser, or take both from a checkpoint.

        Args:
            config: the resolved root configuration.
            samples: what to train on.
            folder: folder of the run.
            device: where to train.
            validate: called every `validate_every` steps and at the end.
            resume: checkpoint to go on from.

        Raises:
            CheckpointError: the checkpoint cannot be read or belongs to another model.
        """
        self.config, self.training, self.samples, self.folder = config, config.training, samples, folder
        self.device, self.validate = device, validate
        self.total = total_samples(self.training, len(samples.table))
        self.step = self.seen = 0
        self.best: float | None = None
        self.best_step: int | None = None
        self.model = self._model(resume)
        self.optimiser = GuardedAdam(self.model, device, self.training.gradient_clip)
        if resume is not None:
            self._restore(resume)
        # The last batches, so that one found not finite a step later can still be written out.
        self._recent: deque[tuple[int, dict[str, Tensor]]] = deque(maxlen=2)

    def train(self) -> Summary:
        """Train to the end of the schedule and return how it went.

        Raises:
            NonFiniteError: a loss or gradient is not a finite number; the batch and the weights it met are kept.
            DeviceError: the device ran out of memory.
            StoreError: a checkpoint cannot be written.
        """
        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        configuration.save(self.config, self.folder / "config.yaml")
        writer = MetricsWriter(self.folder, resumed_at=self.step, tensorboard=self.training.tensorboard)
        try:
            return self._train(writer)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error):
                raise DeviceError(
                    f"out of memory on {self.device} in step {self.step + 1}",
                    fix=f"lower training.batch_size (now {self.training.batch_size}) or training.patches "
                    f"(now {self.training.patches}) with -o",
                ) from None
            raise
        finally:
            writer.close()

    def _train(self, writer: MetricsWriter) -> Summary:
        training = self.training
        batches = RunBatches(self.seen, self.total, training.batch_size)
        stream = load_batches(
            self.samples,
            batches,
            workers=training.workers,
            prefetch=training.prefetch,
            pinned=self.device.type == "cuda",
        )
        window = Window(self.device)
        figures: dict[str, float] = {}
        saved: Path | None = None
        last = self.step + len(batches)
        with progress("training", last, "steps", done=self.step) as bar:
            while self.step < last:
                with window.waiting():
                    raw = next(stream)
                rate, terms = self._optimise(raw)
                window.add(terms, len(raw["index"]))
                self._stop_if_not_finite()
                if self.step % training.log_every == 0 or self.step == last:
                    figures = {"samples": self.seen, "learning_rate": rate, **window.figures()}
                    writer.write(self.step, figures)
                bar.advance(1, **_shown(figures))
                validated = self.validate is not None and (
                    self.step % training.validate_every == 0 or self.step == last
                )
                better = False
                if validated and self.validate is not None:
                    self._stop_if_not_finite(wait=True)
                    with window.paused():
                        measured = dict(self.validate(self.model))
                    writer.write(self.step, measured)
                    figures |= measured
                    better = self._improves(measured)
                if better or self.step % training.checkpoint_every == 0 or self.step == last:
                    self._stop_if_not_finite(wait=True)
                    with window.paused():
                        saved = self._save(best=better)
        if saved is None:
            raise CheckpointError(
                f"this run is complete: {self.step} steps, {self.seen} samples",
                where=self.folder,
                fix="train longer with --steps N or -o training.epochs=N",
            )
        return Summary(self.step, saved, figures)

    def _optimise(self, raw: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
        """Do one step on a collated batch; return the learning rate and the terms, still on the device."""
        training = self.training
        self._recent.append((self.step + 1, raw))
        jitter = None
        if training.sample_jitter:
            jitter = torch_generator(self.device, self.config.seed, "jitter", self.step)
        batch = prepare(raw, training, self.device)
        terms = training_losses(self.model, batch, training, jitter=jitter)
        rate = learning_rate(training, self.seen, self.total)
        norm = self.optimiser.update(self.step + 1, terms["total"], rate)
        self.step += 1
        self.seen += len(raw["index"])
        named = {"loss" if name == "total" else f"loss/{name}": term.detach() for name, term in terms.items()}
        return rate, {**named, "gradient_norm": norm}

    def _stop_if_not_finite(self, *, wait: bool = False) -> None:
        step = self.optimiser.first_bad_step(wait=wait or self.device.type == "cpu")
        if step is not None:
            self._dump(step)

    def _dump(self, step: int) -> NoReturn:
        """Keep the offending batch and the weights it met, and stop."""
        raw = next(raw for at, raw in self._recent if at == step)
        names = [self.samples.table.name(int(index)) for index in raw["index"]]
        dump = self.folder / f"nonfinite-step_{step}"
        dump.mkdir(exist_ok=True)
        self._write_model(dump)
        torch.save({"step": step, "batch": dict(raw), "samples": names}, dump / "batch.pt")
        raise NonFiniteError(
            f"the loss or a gradient of step {step} is not a finite number (samples: {', '.join(names)})",
            where=dump,
            fix="the folder holds the batch and the weights; lower training.learning_rate or set "
            "training.gradient_clip, and go on with `vipocc train --resume`",
        )

    def _improves(self, measured: Mapping[str, float]) -> bool:
        """Return whether this is the best validation so far, and remember it."""
        name = self.training.best_metric
        if name not in measured:
            return False
        value, smaller = measured[name], name.rpartition("/")[2] in _SMALLER_IS_BETTER
        if value != value or (self.best is not None and (value >= self.best if smaller else value <= self.best)):
            return False
        self.best, self.best_step = value, self.step
        return True

    def _save(self, *, best: bool) -> Path:
        state = RunState(
            step=self.step,
            samples=self.seen,
            batch_size=self.training.batch_size,
            keys=len(self.samples.table),
            best=self.best,
            best_step=self.best_step,
            optimiser=self.optimiser.adam.state_dict(),
        )
        # While nothing has measured `best_metric`, the newest is the best that is known.
        best = best or self.best is None
        return write_checkpoint(
            self.folder / "checkpoints", state, self._write_model, keep=self.training.keep, best=best
        )

    def _write_model(self, folder: Path) -> None:
        self.model.save_pretrained(folder, configuration.as_dict(self.config))

    def _model(self, resume: Path | None) -> ViPOcc:
        # The networks' constructors draw from torch's global generator; it is left as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.config.seed, "weights"))
            model = ViPOcc(self.config.model, self.config.data.convention, initialise=resume is None)
        if resume is not None:
            model_checkpoint.load_into(model, resume)
        return model.to(self.device).use_precision(self.training.dtype).train()

    def _restore(self, checkpoint: Path) -> None:
        state = read_state(checkpoint)
        self.optimiser.adam.load_state_dict(state.optimiser)
        self.step, self.seen, self.best, self.best_step = state.step, state.samples, state.best, state.best_step
        if state.batch_size != self.training.batch_size:
            say(
                f"training.batch_size was {state.batch_size} and is now {self.training.batch_size}: samples keep their "
                "order and the schedule its place, but steps group them differently from an undisturbed run"
            )
        if state.keys != len(self.samples.table):
            say(
                f"the split had {state.keys} samples and now has {len(self.samples.table)}: their order from here on "
                "is another one"
            )


class Window:
    """Sums of figures since the last log line; nothing waits for the device until the line is written."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = self.samples = 0
        self.waited = self.excluded = 0.0
        self.start = time.perf_counter()

    def add(self, terms: Mapping[str, Tensor], samples: int) -> None:
        """Count a step."""
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.steps += 1
        self.samples += samples

    def waiting(self) -> _Stopwatch:
        """Return a context in which time counts as waiting for data."""
        return _Stopwatch(lambda seconds: setattr(self, "waited", self.waited + seconds))

    def paused(self) -> _Stopwatch:
        """Return a context whose time is no training time: validation, saving."""
        return _Stopwatch(lambda seconds: setattr(self, "excluded", self.excluded + seconds))

    def figures(self) -> dict[str, float]:
        """Return means since the last call, rates and memory, and start anew.

        `data_wait` is the share of the time that the loop waited for samples.
        """
        means = {name: float(value) / self.steps for name, value in self.sums.items()}
        seconds = max(time.perf_counter() - self.start - self.excluded, 1e-9)
        figures = {
            **means,
            "samples_per_second": self.samples / seconds,
            "step_ms": 1000 * seconds / self.steps,
            "data_wait": self.waited / seconds,
            "peak_memory_gib": peak_memory_gib(self.device),
        }
        self._reset()
        return figures


class _Stopwatch:
    def __init__(self, report: Callable[[float], None]) -> None:
        self.report = report

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.report(time.perf_counter() - self.start)


def _shown(figures: Mapping[str, float]) -> dict[str, object]:
    names = {"loss": "loss", "loss/rgb": "rgb", "loss/depth": "depth", "loss/temporal": "temporal", "data_wait": "wait"}
    return {short: figures[name] for name, short in names.items() if name in figures}
