"""What a source of priors answers: one small class that says what it is, what it may run on and what computes."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import create_model

from vipocc.config import Schema, validate
from vipocc.data_manifests.config import DataConfig
from vipocc.errors import ConfigError
from vipocc.priors.config import InstanceClass, NetworkOptions, PriorsConfig
from vipocc.priors.devices import check_dtype
from vipocc.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from vipocc.priors.grounded_sam.records import Detections
    from vipocc.priors.job import PriorComputer

Kind: TypeAlias = Literal["depth", "instances"]

_MODEL = ("model", "revision", "digest", "licence")
"""What the record says of each model."""


@dataclass(frozen=True)
class Images:
    """Prepared images of one camera, as a network gets them."""

    rgb: NDArray[np.uint8]
    """[B, H, W, 3]."""
    intrinsics: NDArray[np.float64]
    """[3, 3] of these images, in their pixels, (0, 0) the centre of the top-left one."""
    group: str
    """`<sequence>/<camera>`."""
    rows: tuple[int, ...]
    """[B] rows of the sequence."""


DepthModel: TypeAlias = "Callable[[Images], NDArray[Any] | torch.Tensor]"
"""Images in, metres along the optical axis out: [B, H, W]."""
InstanceModel: TypeAlias = "Callable[[Images], Sequence[tuple[Detections, NDArray[np.bool_]]]]"
"""Images in; out, for each, its boxes and their masks [K, H, W], which may overlap."""


class Source(ABC):
    """What one kind of prior comes from. Made for a run from the configuration; makes the computer that workers get.

    It is cheap to make and picklable: weights are loaded by the computer, on its device.
    """

    kind: ClassVar[Kind]
    name: ClassVar[str]
    """As in `--prior` and in every record; also the name of its entry point."""
    Options: ClassVar[type[Schema]]
    """Schema of its options, which are `priors.options.<name>` in the configuration."""
    section: ClassVar[str] = ""
    """Where below `priors` the options are, if elsewhere."""
    accelerated: ClassVar[bool] = True
    """Whether it runs on a GPU where there is one; otherwise it is spread over the cores of the CPU."""

    def __init__(self, workspace: Workspace, config: Any) -> None:
        """Take what the configuration says; raises `ConfigError` for options that the source does not have."""
        height, width = config.data.image_size
        self.workspace = workspace
        self.seed = int(config.seed)
        self.size: tuple[int, int] = (int(height), int(width))
        """Height and width of the prepared images."""
        self.data: DataConfig = config.data
        """How images are prepared."""
        self.priors: PriorsConfig = config.priors
        self.options: Any = _options(type(self), config.priors)

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return everything that decides the result but the image, as JSON values.

        `model`, `revision`, `digest` and `licence` of the weights (`Weights.provenance`), or one such mapping for each
        of several models; `preprocessing`, a version that changes whenever a result could; and every option that has
        a say. It stands in every record and in `priors report`, and a store is refused over it.

        Raises:
            CheckpointError: the weights are absent, damaged or of another kind.
        """

    @abstractmethod
    def computer(self) -> PriorComputer:
        """Return what computes, not opened."""

    def check(self, cameras: Literal["perspective", "all"]) -> None:  # noqa: B027  nothing is the usual answer
        """Raise a `VipoccError` if it cannot run on this dataset or these cameras; asked before any stage runs."""

    def check_device(self, device: str) -> None:
        """Raise a `VipoccError` if it cannot run on `device` with its options: in bfloat16 without CUDA, say."""
        if isinstance(self.options, NetworkOptions):
            check_dtype(self.options.dtype, device)

    def summary(self) -> str:
        """Return what runs and how, for the first line of the output, where it stands after the kind of prior."""
        return "by " + " and ".join(str(model["model"]) for model in fingerprint_models(self.fingerprint()))

    def fingerprint(self) -> dict[str, Any]:
        """Return the identity with the source's name, as stores record it.

        Raises:
            CheckpointError: see `identity`.
            ConfigError: the identity lacks something that every record says.
        """
        made_by = {**self.identity(), "source": self.name}
        models = fingerprint_models(made_by)
        lacks = sorted({key for model in models for key in _MODEL if key not in model})
        lacks += [] if made_by.get("preprocessing") else ["preprocessing"]
        if not models or lacks:
            raise ConfigError(
                f"the source '{self.name}' does not say {', '.join(lacks) or 'its model'}",
                where=type(self).__module__,
                fix="its method identity() has to (docs/adding-a-prior.md)",
            )
        try:
            json.dumps(made_by)
        except TypeError as error:
            raise ConfigError(
                f"what identifies the source '{self.name}' cannot be recorded ({error})",
                where=type(self).__module__,
                fix="its method identity() has to return JSON values (docs/adding-a-prior.md)",
            ) from None
        return made_by

    @classmethod
    def remarks(cls, fingerprint: Mapping[str, Any]) -> tuple[str, ...]:
        """Return sentences that `priors report` shows on top where a record has this fingerprint."""
        return ()


class DepthSource(Source):
    """Metric depth of prepared images."""

    kind = "depth"

    @property
    def stored(self) -> Literal["float16", "float32"]:
        """Type of the metres in the store."""
        return self.priors.depth.stored

    @property
    def images(self) -> Literal["prepared", "raw"]:
        """What goes in; `raw`, the dataset's own images, into the store `depth-raw`, takes a computer of one's own."""
        return "prepared"

    def fingerprint(self) -> dict[str, Any]:
        """Return the identity with the source's name and the stored type; raises what `Source.fingerprint` raises."""
        return {**super().fingerprint(), "stored": self.stored}

    def load(self, device: str) -> DepthModel:
        """Return the network on `device`, for the computer that runs it on prepared images in batches."""
        raise NotImplementedError(f"{type(self).__name__} has neither load nor computer")

    def computer(self) -> PriorComputer:
        """Return what runs the network of `load`; its `Options` are `NetworkOptions`."""
        from vipocc.priors.sources.networks import DepthNetworkComputer

        return DepthNetworkComputer(self.workspace.store("frames"), self)

    @classmethod
    def cap(cls, fingerprint: Mapping[str, Any]) -> float | None:
        """Return the farthest depth that the model gives, metres, from a record; None where it has none."""
        value = fingerprint.get("max_depth")
        return None if value is None else float(value)


class InstanceSource(Source):
    """Instances in prepared images: boxes, classes, scores and masks."""

    kind = "instances"

    @property
    def classes(self) -> tuple[InstanceClass, ...]:
        """The classes, whose positions are the labels; each says how SNOG samples it."""
        return self.priors.sam.classes

    def load(self, device: str) -> InstanceModel:
        """Return the network on `device`, for the computer that runs it on prepared images in batches."""
        raise NotImplementedError(f"{type(self).__name__} has neither load nor computer")

    def computer(self) -> PriorComputer:
        """Return what runs the network of `load`; its `Options` are `NetworkOptions`."""
        from vipocc.priors.sources.networks import InstanceNetworkComputer

        return InstanceNetworkComputer(self.workspace.store("frames"), self)


def options_section(source: type[Source]) -> str:
    """Return where the options of a source are, as in `-o <section>.key=value`."""
    return f"priors.{source.section or f'options.{source.name}'}"


def fingerprint_models(fingerprint: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a fingerprint says of each model: one, or several that stand under names of their own."""
    parts = [fingerprint, *(part for part in fingerprint.values() if isinstance(part, Mapping))]
    return [part for part in parts if "model" in part]


def _options(source: type[Source], priors: PriorsConfig) -> Any:
    if source.section:
        return getattr(priors, source.section)
    # Nested as in the whole configuration, so that a mistake is told by its full key.
    path, schema = options_section(source).split("."), source.Options
    values: Any = priors.options.get(source.name, {})
    for part in reversed(path):
        schema = create_model(part, __base__=Schema, **{part: (schema, ...)})  # type: ignore[call-overload]
        values = {part: values}
    found: Any = validate(values, schema)
    for part in path:
        found = getattr(found, part)
    return found
