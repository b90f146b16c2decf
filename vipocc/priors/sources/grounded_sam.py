"""Grounding DINO and SAM (published_system 2.2) as a source; their networks are `vipocc.priors.grounded_sam`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vipocc.priors.config import SamConfig
from vipocc.priors.devices import check_compiled, check_dtype
from vipocc.priors.job import PriorComputer
from vipocc.priors.sources.base import InstanceSource


class GroundedSam(InstanceSource):
    """Boxes by Grounding DINO, masks by SAM."""

    name = "grounded-sam"
    Options = SamConfig
    section = "sam"
    options: SamConfig

    def identity(self) -> Mapping[str, Any]:
        """Return both models and all parameters."""
        from vipocc.priors.grounded_sam.provenance import instances_fingerprint

        return instances_fingerprint(self.options)

    def check_device(self, device: str) -> None:
        """Raise `DeviceError` for bfloat16 or compiling without CUDA."""
        check_dtype(self.options.dtype, device)
        check_compiled(self.options.compiled, device)

    def summary(self) -> str:
        """Return both models and what runs them: the engines may differ."""
        made_by = self.identity()
        models = (("detector", self.options.detector), ("segmenter", self.options.segmenter))
        named = " and ".join(f"{name} (engine {made_by[part]['engine']})" for part, name in models)
        return f"by {named} in {self.options.dtype}"

    def computer(self) -> PriorComputer:
        """Return the computer that both networks share."""
        from vipocc.priors.grounded_sam.computer import InstancesComputer

        return InstancesComputer(self.workspace.store("frames"), self.options)
