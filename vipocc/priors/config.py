"""Schema of the section `priors`: which foundation models run, with what parameters, and what is simulated instead.

Imports neither torch nor zarr, so that a mistake in a configuration is found before anything is loaded.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from vipocc.config import Schema
from vipocc.priors.snog.config import SnogConfig

MAX_INSTANCES = 254
"""Most instances kept of one image: instance numbers plus one must fit the uint8 map of masks."""

SYNTHETIC_PRIORS: Literal["simulated", "embedded"] = "simulated"
"""What new synthetic workspaces take priors from: the degraded exact truth, or the small networks of the package.

`embedded` once their weights are in `vipocc/priors/embedded/`. It is decided here and not by which files lie there: a
package that lacks them must say so, not simulate.
"""

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class DepthConfig(Schema):
    """Metric pseudo-depth by Depth Anything V2 (published_system 2.1)."""

    model: str = "depth-anything/Depth-Anything-V2-Metric-Outdoor-Large-hf"
    """Hub id or folder of a metric Depth Anything V2 (config.json, *.safetensors), or an original `.pth`."""
    max_depth: Positive | None = None
    """Metres that the network reaches at most; to be said of an original checkpoint whose name does not tell it."""
    revision: str | None = None
    """Commit or tag of a hub id; by default what the hub's cache holds, else the newest."""
    images: Literal["prepared", "raw"] = "prepared"
    """What goes in: the prepared image, as published, or the dataset's own at full size (into another store)."""
    preprocessing: Literal["auto", "official", "hub"] = "auto"
    """The published processing, or that of the model's image processor (192x640 goes in as 154x518); `auto` is the
    published one unless the model's processor fixes the size, as that of `embedded:depth` does (196x644)."""
    input_size: Literal["published", "native"] = "published"
    """`native` sends the image at its own size: 192x640 as 196x644, a seventh of the work, other depth."""
    short_side: Annotated[int, Field(ge=14)] = 518
    """Pixels that the shorter side of the network's input has at least: 192x640 goes in as 518x1722."""
    batch_size: Count | Literal["auto"] = "auto"
    """Images the network takes at once; `auto`: tried out on CUDA, halved when memory runs out, 4 on the CPU."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network; bfloat16 needs CUDA. Resizing and the result stay float32."""
    compiled: bool = False
    """Whether the network is compiled first (torch.compile): a minute once, then faster; CUDA only."""
    stored: Literal["float16", "float32"] = "float16"
    """Type of the stored metres; float32 is what the paper stored."""

    @model_validator(mode="after")
    def _one_size(self) -> DepthConfig:
        if self.preprocessing == "hub" and self.input_size == "native":
            raise ValueError(
                "preprocessing 'hub' and input_size 'native' contradict each other: the hub has its own size"
            )
        return self


class InstanceClass(Schema):
    """One class of instances: the phrases that the detector is asked for and how SNOG samples it (Table 8)."""

    label: str
    """Name that is stored; phrases of the same label are merged."""
    phrases: tuple[str, ...]
    """What the prompt says for it, lower case."""
    sampling: Literal["gaussian", "uniform"]
    """`gaussian` for critical objects, `uniform` for large surfaces."""

    @field_validator("phrases")
    @classmethod
    def _promptable(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        if not phrases:
            raise ValueError("a class needs at least one phrase")
        for phrase in phrases:
            if not phrase.strip() or phrase != phrase.strip().lower() or any(mark in phrase for mark in ".?"):
                raise ValueError(f"phrase {phrase!r} must be lower case, without '.' or '?', and not blank")
        return phrases


def _class(label: str, sampling: Literal["gaussian", "uniform"], *phrases: str) -> InstanceClass:
    return InstanceClass(label=label, phrases=phrases or (label,), sampling=sampling)


CLASSES: tuple[InstanceClass, ...] = (
    _class("road", "uniform"),
    _class("building", "uniform"),
    _class("vegetation", "uniform"),
    _class("sky", "uniform"),
    _class("car", "gaussian"),
    _class("pedestrian", "gaussian", "pedestrian", "person"),
    _class("rider", "gaussian"),
    _class("truck", "gaussian", "truck", "caravan"),
    _class("bus", "gaussian"),
    _class("bicycle", "gaussian", "bicycle", "motorcycle"),
)
"""Table 8's prompts and sampling kinds, the traffic that it merges or leaves out spelled out as Cityscapes' words."""


class SamConfig(Schema):
    """Instances by Grounding DINO and SAM (published_system 2.2)."""

    engine: Literal["auto", "transformers", "original"] = "auto"
    """`transformers` runs hub ids and folders, `original` (groundingdino-py, segment-anything) the official `.pth`
    files; `auto` goes by the weights, for each of the two models alone."""
    detector: str = "IDEA-Research/grounding-dino-tiny"
    """Hub id or folder of a Grounding DINO (transformers), or an official `.pth`; the default is Swin-T OGC."""
    detector_revision: str | None = None
    """Commit or tag of the detector's hub id."""
    segmenter: str = "facebook/sam-vit-huge"
    """Hub id or folder of a SAM in transformers' layout, or an official `.pth`."""
    segmenter_revision: str | None = None
    """Commit or tag of the segmenter's hub id."""
    tokenizer: str = "google-bert/bert-base-uncased"
    """Hub id or folder of the tokenizer for a detector given as `.pth`; one that lies beside that file comes first."""
    encoding: Literal["square", "native"] = "square"
    """`square` pads SAM's input to a square as published; `native` to whole patches only, faster and not the same."""
    classes: tuple[InstanceClass, ...] = CLASSES
    """The one prompt of the run, how its phrases merge, and how each class is sampled."""
    box_threshold: Share = 0.3
    """Least probability of a box's best phrase token."""
    text_threshold: Share = 0.25
    """Least probability of a token that supports a phrase; a box that supports none is dropped."""
    nms_iou: Share = 0.7
    """Boxes of one class that overlap more than this are one object, the surest kept."""
    shortest_side: Count | None = None
    """Pixels of the shorter side of the detector's input, unless `longest_side` binds first; by default what the
    model's image processor says, 800 as published where there is none."""
    longest_side: Count | None = None
    """Most pixels of the longer side of the detector's input; by default likewise, 1333 as published."""
    batch_size: Count | Literal["auto"] = "auto"
    """Images that the detector and SAM's encoder take at once; `auto`: tried out on CUDA for each of them, halved when
    memory runs out, 4 on the CPU."""
    boxes_at_once: Count = 64
    """Boxes that SAM's decoder takes at once; bounds memory, changes nothing."""
    compiled: bool = False
    """Whether SAM's encoder, most of the work, is compiled first (torch.compile): some start-up time, then faster;
    CUDA only."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the networks; bfloat16 needs CUDA."""

    @model_validator(mode="after")
    def _distinct(self) -> SamConfig:
        labels = [entry.label for entry in self.classes]
        phrases = [phrase for entry in self.classes for phrase in entry.phrases]
        if not labels:
            raise ValueError("at least one class is needed")
        for kind, names in (("label", labels), ("phrase", phrases)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind} {twice[0]!r} stands twice")
        return self


class SimulatedConfig(Schema):
    """Faults of the simulated priors of the synthetic world, sized like those measured on real drives."""

    scale: Positive = 1.6
    """Median ratio of simulated to true depth: an outdoor model on KITTI-360 is about 1.6 times too far."""
    field: Annotated[float, Field(ge=0, le=1)] = 0.12
    """Standard deviation of the logarithm of the smoothly varying part of the scale error."""
    field_frames: Count = 16
    """Frames over which the smooth part changes into an unrelated one."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Standard deviation of the logarithm of the pixels' own noise."""
    blur: Annotated[float, Field(ge=0, le=0.1)] = 0.0025
    """Standard deviation of the blur across depth edges, as a share of the image's width."""
    cap: Positive = 80.0
    """Farthest depth in metres, and the depth of the sky."""
    missed: Share = 0.08
    """Share of large instances that are missed; small ones are missed more often."""
    missed_small: Share = 0.5
    """Share of the smallest instances that are missed."""
    small_area: Positive = 60.0
    """Pixels at a height of 192 at which the chance to be missed is half way between the two."""
    merged: Share = 0.1
    """Share of pairs of touching instances of one class that are taken for one."""
    box_jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.04
    """Standard deviation of a box's edges, as a share of the box's size."""


class NetworkOptions(Schema):
    """Base of the options of a source whose network vipocc runs in batches; a source adds its own."""

    batch_size: Count | Literal["auto"] = "auto"
    """Images the network takes at once; `auto`: tried out on CUDA, halved when memory runs out, 4 on the CPU."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network; bfloat16 needs CUDA."""


class KindsConfig(Schema):
    """Which source each prior comes from, by name; `auto` is the simulation for the synthetic dataset alone."""

    depth: str = "auto"
    """`depth-anything-v2`, `simulated` (the synthetic dataset's degraded exact truth), or one that is installed."""
    instances: str = "auto"
    """`grounded-sam`, `simulated`, or one that is installed."""


class PriorsConfig(Schema):
    """What the stage `priors` computes and from what."""

    kinds: KindsConfig = KindsConfig()
    """Where priors come from."""
    depth: DepthConfig = DepthConfig()
    """Depth Anything V2; `stored` holds for depth from any source."""
    sam: SamConfig = SamConfig()
    """Grounding DINO and SAM; `classes` hold for instances from any source."""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of sources that other packages bring, by the source's name; each source checks its own."""
    simulated: SimulatedConfig = SimulatedConfig()
    """Faults of the simulated source."""
    snog: SnogConfig = SnogConfig()
    """Sampling of ray-patch anchors from the instances."""
