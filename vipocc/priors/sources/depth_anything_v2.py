"""Depth Anything V2 (published_system 2.1) as a source; its network is `vipocc.priors.depth`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vipocc.priors.config import DepthConfig
from vipocc.priors.devices import check_compiled, check_dtype
from vipocc.priors.job import PriorComputer
from vipocc.priors.sources.base import DepthModel, DepthSource


class DepthAnythingV2(DepthSource):
    """Metric Depth Anything V2."""

    name = "depth-anything-v2"
    Options = DepthConfig
    section = "depth"
    options: DepthConfig

    @property
    def images(self) -> Literal["prepared", "raw"]:
        """What goes in."""
        return self.options.images

    def identity(self) -> Mapping[str, Any]:
        """Return model, weights and every parameter of the network and of what goes in."""
        from vipocc.priors.depth.loading import depth_fingerprint

        return depth_fingerprint(self.options)

    def check_device(self, device: str) -> None:
        """Raise `DeviceError` for bfloat16 or compiling without CUDA."""
        check_dtype(self.options.dtype, device)
        check_compiled(self.options.compiled, device)

    def summary(self) -> str:
        """Return the model and what goes in."""
        options = self.options
        size = "own size" if options.input_size == "native" else f"short side {options.short_side}"
        made_by = self.identity()
        if "processor" in made_by:
            fixed = made_by["processor"].get("size", {})
            size = "the model's own processor, " + "x".join(str(side) for side in fixed.values())
        return f"by {options.model} in {options.dtype}, {options.images} images, {size}"

    def load(self, device: str) -> DepthModel:
        """Return the network on `device`, for pictures that are in no store; batches and arithmetic are its own."""
        from vipocc.priors.depth.depth_anything import DepthAnything

        network = DepthAnything(self.options, device)
        return lambda images: network(images.rgb)

    def computer(self) -> PriorComputer:
        """Return the network's own computer, which keeps the device busy and reads raw images too."""
        from vipocc.data_manifests.manifest import Manifest
        from vipocc.priors.depth.computer import DepthComputer, RawDepthComputer

        frames = self.workspace.store("frames")
        if self.images == "prepared":
            return DepthComputer(frames, self.options)
        path, dataset, root = self.workspace.manifest, self.workspace.dataset, self.workspace.root
        # For the estimate of time alone; before the dataset is indexed, that of the prepared images has to do.
        raw_size = self.size
        if path.is_file():
            manifest = Manifest.load(path, dataset=dataset, root=root)
            camera = manifest.camera_model(*next(iter(manifest.needed("all"))))
            raw_size = (camera.height, camera.width)
        return RawDepthComputer(frames, self.options, path, dataset, root, self.size, raw_size)
