"""The training loop: read, step, log, validate, save, and go on from where a run was saved."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
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
from vipocc.training.best import Best
from vipocc.training.captured import CapturedGradients
from vipocc.training.distributed import ALONE, GradientSum, Ranks
from vipocc.training.ema import WeightAverage
from vipocc.training.failure import RawPart, write_dump
from vipocc.training.gradients import add_gradients
from vipocc.training.metrics import MetricsWriter
from vipocc.training.optimiser import GuardedAdam
from vipocc.training.prefetch import prefetched
from vipocc.training.profiling import StepProfile
from vipocc.training.resuming import changes
from vipocc.training.samples import TrainingSamples
from vipocc.training.saving import Saver
from vipocc.training.schedule import learning_rate, total_samples
from vipocc.training.seeds import derived_seed
from vipocc.training.sinks import open_sinks
from vipocc.training.state import RunState, read_state
from vipocc.training.stream import RunBatches, load_packed
from vipocc.training.window import Window, shown

#: Validates the model and returns figures by name.
Validate = Callable[[ViPOcc], Mapping[str, float]]

#: Steps from which on the minute that compiling takes is won back.
WORTH_COMPILING = 2000


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    steps: int
    checkpoint: Path
    figures: dict[str, float]
    """The last line of metrics, validation included; empty in all processes but the first."""
    profile: str | None = None
    """What `profile` found."""


class Trainer:
    """Trains one model on one device, alone or as one of several processes."""

    def __init__(
        self,
        config: Any,
        samples: TrainingSamples,
        folder: Path,
        *,
        device: torch.device,
        validate: Validate | None = None,
        resume: Path | None = None,
        ranks: Ranks = ALONE,
        profile: bool = False,
    ) -> None:
        """Build the model and its optimiser, or take both from a checkpoint.

        Args:
            config: the resolved root configuration.
            samples: what to train on.
            folder: folder of the run.
            device: where to train.
            validate: called every `validate_every` steps and at the end, in the first process.
            resume: checkpoint to go on from.
            ranks: the processes that train together.
            profile: record a trace of some steps.

        Raises:
            CheckpointError: the checkpoint cannot be read or belongs to another model.
        """
        self.config, self.training, self.samples, self.folder = config, config.training, samples, folder
        self.device, self.validate, self.ranks, self.profile = device, validate, ranks, profile
        self.total = total_samples(self.training, len(samples.table))
        self.step = self.seen = 0
        self.best = Best(self.training.best_metric)
        self.model = self._model(resume)
        self.optimiser = GuardedAdam(self.model, device, self.training.gradient_clip)
        self.average = None if self.training.ema is None else WeightAverage(self.model, self.training.ema)
        if resume is not None:
            self._restore(resume)
        self.captured = CapturedGradients(self.model, config, device) if self._captures() else None
        self.reducer = GradientSum(self.optimiser.parameters, ranks) if ranks.world > 1 else None
        # The last batches, so that one found not finite a step later can still be written out.
        self._recent: deque[tuple[int, list[RawPart]]] = deque(maxlen=2)

    def train(self) -> Summary:
        """Train to the end of the schedule and return how it went.

        Raises:
            NonFiniteError: a loss or gradient is not a finite number; the batch and the weights it met are kept.
            DeviceError: the device ran out of memory.
            StoreError: a checkpoint cannot be written.
        """
        first = self.ranks.first
        saver = Saver(self.folder / "checkpoints", self.config) if first else None
        writer = None
        if first:
            (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            configuration.save(self.config, self.folder / "config.yaml")
            sinks = open_sinks(self.folder, self.config, resumed_at=self.step)
            writer = MetricsWriter(self.folder, resumed_at=self.step, sinks=sinks)
        failing = True
        try:
            summary = self._train(writer, saver)
            failing = False
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error):
                raise self._out_of_memory() from None
            raise
        finally:
            if writer is not None:
                writer.close()
            if saver is not None:
                saver.close(failing=failing)
        return summary

    def _train(self, writer: MetricsWriter | None, saver: Saver | None) -> Summary:
        training = self.training
        batches = RunBatches(
            self.seen,
            self.total,
            training.batch_size,
            rank=self.ranks.rank,
            world=self.ranks.world,
            parts=training.accumulate,
        )
        last = self.step + batches.steps
        if self.step == last:
            raise CheckpointError(
                f"this run is complete: {self.step} steps, {self.seen} samples",
                where=self.folder,
                fix="train longer with --steps N or -o training.epochs=N",
            )
        source = load_packed(self.samples, batches, workers=training.workers, prefetch=training.prefetch)
        window = Window(self.device)
        figures: dict[str, float] = {}
        saved = self.folder / "checkpoints"
        trace = StepProfile(self.folder, self.step, self.device) if self.profile and self.ranks.first else None
        bar_shown = progress("training", last, "steps", done=self.step)
        with prefetched(source, self.device) as stream, bar_shown as bar:
            while self.step < last:
                raw = [next(stream) for _ in range(training.accumulate)]
                rate, terms = self._optimise(self._placed(raw))
                window.add(terms, training.batch_size)
                self._stop_if_not_finite()
                if trace is not None:
                    trace.advance()
                if writer is not None and (self.step % training.log_every == 0 or self.step == last):
                    figures = {"samples": self.seen, "learning_rate": rate, **window.figures(stream.waited())}
                    writer.write(self.step, figures)
                bar.advance(1, **shown(figures))
                validated = self.step % training.validate_every == 0 or self.step == last
                saving = self.step % training.checkpoint_every == 0 or self.step == last
                if validated or saving:
                    # Before anything is measured or saved, and in all processes at once.
                    self._stop_if_not_finite(wait=True)
                better = False
                if validated and self.validate is not None and writer is not None:
                    with window.paused():
                        measured = self._validated()
                    writer.write(self.step, measured)
                    figures |= measured
                    better = self.best.improves(measured, self.step)
                if saver is not None:
                    saver.check()
                    if better or saving:
                        with window.paused():
                            saved = self._save(saver, best=better)
        return Summary(self.step, saved, figures, None if trace is None else trace.close())

    def _placed(self, raw: list[dict[str, Tensor]]) -> list[RawPart]:
        """Return the parts of this process's share, each with its place in the run."""
        length = self.training.batch_size // (self.ranks.world * len(raw))
        start = self.seen + self.ranks.rank * len(raw) * length
        return [RawPart(part, start + number * length) for number, part in enumerate(raw)]

    def _optimise(self, parts: list[RawPart]) -> tuple[float, dict[str, Tensor]]:
        """Do one step on this process's share; return the learning rate and the terms, still on the device."""
        training = self.training
        self._recent.append((self.step + 1, parts))
        if self.captured is not None:
            terms = self.captured(parts[0])
        else:
            self.optimiser.clear()
            terms = add_gradients(
                self.model,
                [part.opened(self.config, self.device) for part in parts],
                training,
                ranks=self.ranks,
                reducer=self.reducer,
            )
        rate = learning_rate(training, self.seen, self.total)
        norm = self.optimiser.apply(self.step + 1, terms["total"], rate)
        if self.average is not None:
            self.average.update(self.step + 1)
        self.step += 1
        self.seen += training.batch_size
        named = {"loss" if name == "total" else f"loss/{name}": term for name, term in terms.items()}
        return rate, {**named, "gradient_norm": norm}

    def _validated(self) -> dict[str, float]:
        assert self.validate is not None
        with self.average.in_place() if self.average is not None else nullcontext():
            return dict(self.validate(self.model))

    def _stop_if_not_finite(self, *, wait: bool = False) -> None:
        # Loss and gradients are sums over the processes, so all of them find the same here, at the same step.
        step = self.optimiser.first_bad_step(wait=wait or self.device.type == "cpu")
        if step is not None:
            self._dump(step)

    def _dump(self, step: int) -> NoReturn:
        """Keep the offending batch and the weights it met, and stop."""
        own = [part.on_host() for part in next(parts for at, parts in self._recent if at == step)]
        parts = [part for share in self.ranks.collect(own) for part in share]
        names = [self.samples.table.name(int(index)) for part in parts for index in part.raw["index"]]
        dump = self.folder / f"nonfinite-step_{step}"
        if self.ranks.first:
            dump.mkdir(exist_ok=True)
            self.model.save_pretrained(dump, configuration.as_dict(self.config))
            write_dump(dump, step, parts, names)
        raise NonFiniteError(
            f"the loss or a gradient of step {step} is not a finite number (samples: {', '.join(names)})",
            where=dump,
            fix=f"the folder holds the batch and the weights: `vipocc train --reproduce {dump}` does the step again; "
            "lower training.learning_rate or set training.gradient_clip, and go on with `vipocc train --resume`",
        )

    def _out_of_memory(self) -> DeviceError:
        training = self.training
        at_once = training.batch_size // (self.ranks.world * training.accumulate)
        parts = f"raise training.accumulate (now {training.accumulate}), which takes the batch in smaller parts, or "
        return DeviceError(
            f"out of memory on {self.device} in step {self.step + 1}",
            fix=(parts if at_once > 1 else "")
            + f"lower training.batch_size (now {training.batch_size}) or training.patches (now {training.patches}) "
            "with -o",
        )

    def _save(self, saver: Saver, *, best: bool) -> Path:
        state = RunState(
            step=self.step,
            samples=self.seen,
            batch_size=self.training.batch_size,
            accumulate=self.training.accumulate,
            world=self.ranks.world,
            keys=len(self.samples.table),
            best=self.best.value,
            best_step=self.best.step,
            optimiser=self.optimiser.adam.state_dict(),
        )
        # While nothing has measured `best_metric`, the newest is the best that is known.
        return saver.save(self.model, state, average=self.average, best=best or self.best.value is None)

    def _model(self, resume: Path | None) -> ViPOcc:
        # The networks' constructors draw from torch's global generator; it is left as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.config.seed, "weights"))
            model = ViPOcc(self.config.model, self.config.data.convention, initialise=resume is None)
        if resume is not None:
            model_checkpoint.load_into(model, resume)
        model.fused = self.training.fused
        when = self.training.compile
        steps = self.total // self.training.batch_size
        if when == "always" or (when == "auto" and self.device.type == "cuda" and steps >= WORTH_COMPILING):
            model.compile_networks()
        if self.device.type == "cuda":
            model = model.to(memory_format=torch.channels_last)
        return model.to(self.device).use_precision(self.training.dtype).train()

    def _captures(self) -> bool:
        training = self.training
        alone = self.ranks.world == 1 and training.accumulate == 1
        return training.cuda_graph and self.device.type == "cuda" and alone and not training.deterministic

    def _restore(self, checkpoint: Path) -> None:
        state = read_state(checkpoint)
        self.optimiser.load(state.optimiser)
        self.step, self.seen = state.step, state.samples
        self.best = Best(self.training.best_metric, state.best, state.best_step)
        if state.weights is not None:
            # The model of the checkpoint is the average; the trained weights are in its state.
            if self.average is not None:
                self.average.go_on(state.weights)
            else:
                self.model.load_state_dict(state.weights, strict=False)
        for line in changes(state, self.training, len(self.samples.table), self.ranks.world):
            say(line)
