"""Pseudo-depth of pictures as they come, by a registered source of depth: what `priors depth` writes to a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vipocc import config as configuration
from vipocc.errors import CheckpointError, UsageError
from vipocc.priors import sources
from vipocc.priors.config import NetworkOptions
from vipocc.priors.sources.base import DepthSource, Images
from vipocc.workspace import Workspace

Prior = Callable[[NDArray[np.uint8], NDArray[np.float64]], NDArray[np.float32]]
"""Images [B, H, W, 3] and their intrinsics [3, 3] in pixels to metres [B, H, W]."""


class LivePrior:
    """A source of depth with its network on a device."""

    def __init__(self, name: str, config: Any, device: str, folder: Path) -> None:
        """Load it.

        Args:
            name: a registered source, or a model for `depth-anything-v2`: a hub id, a folder or an original `.pth`.
            config: the checkpoint's whole configuration, whose section `priors` says how.
            device: where the network goes.
            folder: any; a source is told a workspace, which a picture has not.

        Raises:
            UsageError: the source computes no depth of a picture (a simulated one degrades a truth).
            CheckpointError: the weights cannot be had.
        """
        values = configuration.as_dict(config)
        if name in sources.names("depth"):
            values["priors"]["kinds"]["depth"] = name
        else:
            values["priors"]["kinds"]["depth"] = sources.network("depth")
            values["priors"]["depth"] |= {"model": name, "revision": None, "images": "prepared"}
        if not device.startswith("cuda"):
            values["priors"]["depth"] |= {"dtype": "float32", "compiled": False}
        # Of a dataset that there is none of: sources that can only work on one refuse.
        nowhere = Workspace(folder, "pictures", folder)
        source = sources.make_source("depth", nowhere, configuration.validate(values))
        assert isinstance(source, DepthSource)
        own = "load" in vars(type(source)) or type(source).load is not DepthSource.load
        if not own:
            raise UsageError(
                f"the source '{source.name}' computes no depth of a single picture",
                fix=f"give --depth-model a model of Depth Anything V2, or one of {', '.join(_others(source.name))}",
            )
        source.check("perspective")
        source.check_device(device)
        self._source = source
        try:
            self.fingerprint = source.fingerprint()
            """What computes it, as a store would record it."""
            self._compute = _runner(source, device)
        except CheckpointError as error:
            # Told by the name of the option that chose the model here.
            fix = None if error.fix is None else error.fix.replace("--model", "--depth-model")
            raise CheckpointError(error.what, where=error.where, fix=fix) from None

    @property
    def summary(self) -> str:
        """What runs and how, in words."""
        return self._source.summary()

    def __call__(self, images: NDArray[np.uint8], intrinsics: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return metres [B, H, W] along the optical axis, rounded as a store would hold them."""
        given = Images(images, intrinsics, "pictures/image", tuple(range(len(images))))
        depth = self._compute(given).astype(self._source.stored)
        return np.asarray(depth, np.float32)


def _runner(source: DepthSource, device: str) -> Callable[[Images], NDArray[Any]]:
    if not issubclass(source.Options, NetworkOptions):
        network = source.load(device)

        def run(images: Images) -> NDArray[Any]:
            answer: Any = network(images)
            return np.asarray(answer.float().cpu() if hasattr(answer, "cpu") else answer)

        return run
    # The batches, arithmetic and checks of the computer that fills stores, without a store.
    from vipocc.priors.sources.networks import DepthNetworkComputer

    computer = DepthNetworkComputer(source.workspace.store("frames"), source)
    computer.load(device)
    return lambda images: np.asarray(computer.pack(computer.answers(images), images.rgb)["depth"])


def _others(name: str) -> list[str]:
    return [known for known in sources.names("depth") if known not in (name, "simulated")]
