"""The degraded exact truth of the synthetic world as a source of depth and of instances: no network runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vipocc.errors import ConfigError, UsageError
from vipocc.priors.config import SimulatedConfig
from vipocc.priors.job import PriorComputer
from vipocc.priors.sources.base import DepthSource, InstanceSource, Source


class _Simulated(Source):
    name = "simulated"
    Options = SimulatedConfig
    section = "simulated"
    accelerated = False
    options: SimulatedConfig

    def check(self, cameras: Literal["perspective", "all"]) -> None:
        """Raise for real datasets, and for fisheyes: the exact truth holds the synthetic world's stereo pair only."""
        another = "depth-anything-v2" if self.kind == "depth" else "grounded-sam"
        if self.workspace.dataset != "synthetic":
            raise ConfigError(
                f"priors of {self.workspace.dataset} cannot be simulated, only the synthetic world has an exact truth",
                fix=f"use --prior {another}",
            )
        if cameras == "all":
            raise UsageError(
                "simulated priors exist for the stereo pair only",
                fix=f"use --cameras perspective, or --prior {another}",
            )

    def summary(self) -> str:
        """Return that no network runs."""
        return f"simulated from the synthetic world's exact truth (no network runs), seed {self.seed}"

    @classmethod
    def remarks(cls, fingerprint: Mapping[str, Any]) -> tuple[str, ...]:
        """Return that no network ran."""
        return ("simulated from the synthetic world's exact truth, no network ran",)


class SimulatedDepth(_Simulated, DepthSource):
    """Depth with the faults of a network."""

    def identity(self) -> Mapping[str, Any]:
        """Return the faults and the seed."""
        from vipocc.priors.simulated_source import simulated_fingerprint

        return simulated_fingerprint(self.options, self.seed, stored=self.stored)

    def computer(self) -> PriorComputer:
        """Return what degrades the exact depth."""
        from vipocc.priors.simulated_source import SimulatedDepthComputer

        root, frames = self.workspace.root, self.workspace.store("frames")
        return SimulatedDepthComputer(root, frames, self.size, self.options, self.seed, stored=self.stored)

    @classmethod
    def cap(cls, fingerprint: Mapping[str, Any]) -> float | None:
        """Return the depth of the simulated sky."""
        return float(fingerprint["faults"]["cap"])


class SimulatedInstances(_Simulated, InstanceSource):
    """Instances with the faults of a detector."""

    def identity(self) -> Mapping[str, Any]:
        """Return the faults, the classes and the seed."""
        from vipocc.priors.simulated_source import simulated_fingerprint

        classes = [entry.model_dump(mode="json") for entry in self.classes]
        return simulated_fingerprint(self.options, self.seed, classes=classes)

    def computer(self) -> PriorComputer:
        """Return what degrades the exact instances."""
        from vipocc.priors.simulated_source import SimulatedInstancesComputer

        root, frames = self.workspace.root, self.workspace.store("frames")
        return SimulatedInstancesComputer(root, frames, self.size, self.options, self.seed, classes=self.classes)
