"""Time Grounding DINO and SAM as published against ours, end to end and the networks alone; prints one JSON object.

Published: the original packages, one image after another in float32 - read the PNG, the detector with the text encoded
anew, SAM on its padded square, all boxes of the image enlarged at full size, write masks and boxes. Ours:
`vipocc.stores.run` with the computer of `vipocc priors sam`, from frames.zarr to instances.zarr. Beside both: each of
the two models from images in memory to results in memory, and each network alone, in the same configuration and batch,
on inputs that lie on the device. Loading, trying batches out, and with --compile compiling, is no part of a rate.

Weights are random, of the published sizes (Swin-T, ViT-H) and made on the spot. Random detectors find nothing worth
segmenting and are sure of all 900 boxes: the detector's work ends with these and the probabilities of their words, and
eight given boxes an image are segmented, the same both ways.

The weights of both ways are the same, so the JSON also says how far ours are from the published results, in float32
and as timed. The detector is compared before it chooses its 900 queries among some ten thousand proposals: each query
takes a trained vector by its rank, ranks of scores that differ by less than rounding are exchanged, and those rows of
the answer then differ as a whole. Random weights make masks of noise, whose borders are everywhere: only float32 with
the square encoding can agree closely.

Usage, under three minutes on an H100 (add --compile, or --encoding native):
       python benchmarks/grounded_sam.py --device cuda --size full --images 192 --published 6
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import transformers

from vipocc.priors.arithmetic import arithmetic
from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam.computer import InstancesComputer
from vipocc.priors.grounded_sam.conversion import folder_to_pth
from vipocc.priors.grounded_sam.detector import GroundingDino
from vipocc.priors.grounded_sam.preprocessing import (
    detector_input,
    masks_to_image_reference,
    segmenter_input,
    segmenter_size,
)
from vipocc.priors.grounded_sam.random_weights import make_random_detector, make_random_segmenter
from vipocc.priors.grounded_sam.records import Detections
from vipocc.priors.grounded_sam.segmenter import Sam
from vipocc.priors.store_specs import instances_spec
from vipocc.priors.tiny import make_tiny_grounding_dino, make_tiny_sam
from vipocc.stores import (
    ArraySpec,
    LocalExecutor,
    Store,
    StoreReader,
    StoreSpec,
    requests_for,
    row_refs,
    run,
)

IMAGE = (192, 640)
BOXES = 8
GROUP = "drive/image_00"


# Inputs and weights ------------------------------------------------------------------------------------------------


def make_images(count: int) -> np.ndarray:
    """Pictures uint8 [count, 192, 640, 3] of coloured blocks."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, IMAGE[0] // 8, IMAGE[1] // 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)


def make_boxes(count: int) -> list[Detections]:
    """Eight boxes an image, from a tenth to two fifths of its sides."""
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 0.6, (count, BOXES, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.4, low.shape)], -1) * np.tile(IMAGE[::-1], 2)
    return [
        Detections(some.astype(np.float32), np.ones(BOXES, np.float32), np.zeros(BOXES, np.int16)) for some in boxes
    ]


def make_weights(folder: Path, size: str, device: str) -> None:
    """Write random weights of both layouts."""
    if size == "tiny":
        make_tiny_grounding_dino(folder / "detector", width=256)
        make_tiny_sam(folder / "segmenter")
    else:
        make_random_detector(folder / "detector", device=device)
        make_random_segmenter(folder / "segmenter", device=device)
    for part in ("detector", "segmenter"):
        folder_to_pth(str(folder / part), folder / f"{part}.pth")


def write_frames(folder: Path, images: np.ndarray) -> None:
    class Frames:
        rows_per_call = 64

        def open(self, device: str) -> None: ...

        def close(self) -> None: ...

        def compute(self, unit: Any, rows: Any) -> dict[str, np.ndarray]:
            return {"rgb": images[np.asarray(rows)]}

    array = ArraySpec("rgb", (*IMAGE, 3), "uint8", 0, ("y", "x", "channel"), "1", "image")
    store = Store.create_or_open(folder / "frames.zarr", StoreSpec("frames", (array,)), folder)
    store.ensure_group(GROUP, np.arange(len(images)))
    run(store, requests_for(GROUP, range(len(images)), {"made": "up"}), Frames())


# The published way -------------------------------------------------------------------------------------------------


class PublishedText(torch.nn.Module):
    """The text encoder put back in place: as published, it runs for every image."""

    def __init__(self, bert: Any, features: torch.nn.Module) -> None:
        super().__init__()
        self.bert, self.features = bert, features

    def forward(self, input_ids: torch.Tensor, **given: torch.Tensor) -> Any:
        self.bert(
            input_ids=input_ids, position_ids=given["position_ids"], attention_mask=given["attention_mask"][:, None]
        )
        return self.features(input_ids)


def restore_text(detector: GroundingDino) -> None:
    model: Any = detector.network.model  # type: ignore[attr-defined]
    width = model.bert.features.shape[-1]
    config = transformers.BertConfig(
        hidden_size=width,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        num_hidden_layers=12 if width == 768 else 1,
    )
    model.bert = PublishedText(transformers.BertModel(config).eval().to(detector.device), model.bert)


class Published:
    """Both models, and the seconds that each of the three parts of the work took."""

    def __init__(self, config: SamConfig, device: str, folder: Path) -> None:
        self.detector, self.segmenter = GroundingDino(config, device), Sam(config, device)
        restore_text(self.detector)
        self.folder = folder
        self.seconds = {"detector": 0.0, "segmenter": 0.0, "end_to_end": 0.0}
        inside = segmenter_size(*IMAGE, self.segmenter.side)
        self.factor = np.array([inside[1] / IMAGE[1], inside[0] / IMAGE[0]] * 2)

    def __call__(self, files: Sequence[Path], found: Sequence[Detections]) -> list[np.ndarray]:
        """Return the masks of some images, done one after another."""
        return [self._one(file, some) for file, some in zip(files, found, strict=True)]

    def _one(self, file: Path, found: Detections) -> np.ndarray:
        device = self.segmenter.device
        with self._timed("end_to_end"):
            image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
            with self._timed("detector"):
                boxes = self.detector.infer(image[None])[1]
            with self._timed("segmenter"), torch.inference_mode(), arithmetic(device, "float32"):
                network = self.segmenter.network
                embedding = network.encode(segmenter_input(image[None], self.segmenter.side, device=device))
                scaled = torch.from_numpy((found.boxes * self.factor).astype(np.float32)).to(device)
                owners = torch.zeros(len(scaled), dtype=torch.long, device=device)
                logits = network.decode(embedding, owners, scaled)
                masks = np.asarray(masks_to_image_reference(logits, *IMAGE, self.segmenter.side).cpu().numpy())
            np.savez(self.folder / file.stem, masks=masks, boxes=boxes)
        return masks

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        wait(self.segmenter.device)
        start = time.perf_counter()
        yield
        wait(self.segmenter.device)
        self.seconds[part] += time.perf_counter() - start

    def rates(self, files: Sequence[Path], found: Sequence[Detections]) -> dict[str, float]:
        """Return images a second of each part, after one image to warm up."""
        self(files[:1], found[:1])
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        self(files, found)
        return {part: len(files) / seconds for part, seconds in self.seconds.items()}


# Ours --------------------------------------------------------------------------------------------------------------


class GivenBoxes(InstancesComputer):
    """The computer of `vipocc priors sam`; in the place of the boxes that its detector would choose, some are given.

    It is opened beforehand: loading, trying batches out and compiling are no part of the rate.
    """

    def __init__(self, config: SamConfig, frames: Path, found: Sequence[Detections], device: str) -> None:
        super().__init__(frames=frames, config=config)
        self.found = found
        super().open(device)

    def open(self, device: str) -> None: ...

    def close(self) -> None: ...

    @property
    def models(self) -> tuple[GroundingDino, Sam]:
        return self._open_models()

    def infer(self, unit: Any, rows: Sequence[int], images: np.ndarray) -> Any:
        detector, segmenter = self.models
        find(detector, images)
        given = [self.found[row] for row in rows]
        return given, segmenter(images, given)


def find(detector: GroundingDino, images: np.ndarray) -> None:
    """Run the detector on images in its batches, up to the 900 boxes of each."""
    for _ in detector.batch.split(len(images), lambda start, stop: detector.infer(images[start:stop])):
        pass


def end_to_end(computer: GivenBoxes, folder: Path, count: int, device: str) -> float:
    """Return images a second from frames.zarr to instances.zarr."""
    store = Store.create_or_open(
        folder / "instances.zarr", instances_spec("benchmark", IMAGE, computer.config.classes), folder
    )
    store.ensure_group(GROUP, np.arange(count))
    refs = {row: [ref] for row, ref in row_refs(StoreReader(folder / "frames.zarr"), GROUP, range(count)).items()}
    requests = requests_for(GROUP, range(count), {"model": "random"}, refs)
    done = run(store, requests, computer, LocalExecutor((device,)))
    assert done.rows == count
    return count / done.seconds


def detector_alone(detector: GroundingDino, images: np.ndarray) -> Callable[[], object]:
    config = detector.config
    pixels = detector_input(images, *detector.sides, detector.device)

    def call() -> None:
        with torch.inference_mode(), arithmetic(detector.device, config.dtype):
            detector.network(pixels)

    return call


def segmenter_alone(segmenter: Sam, images: np.ndarray, found: Sequence[Detections]) -> Callable[[], object]:
    network, device, config = segmenter.network, segmenter.device, segmenter.config
    pixels = segmenter_input(images, segmenter.side, encoding=config.encoding, patch=network.patch, device=device)
    inside = segmenter_size(*IMAGE, segmenter.side)
    factor = np.array([inside[1] / IMAGE[1], inside[0] / IMAGE[0]] * 2)
    boxes = torch.from_numpy(np.concatenate([some.boxes for some in found]) * factor).float().to(device)
    owners = torch.arange(len(images), device=device).repeat_interleave(BOXES)

    def call() -> None:
        with torch.inference_mode(), arithmetic(device, config.dtype):
            embeddings = network.encode(pixels)
            for some, whose in zip(boxes.split(config.boxes_at_once), owners.split(config.boxes_at_once), strict=True):
                network.decode(embeddings, whose, some)

    return call


def per_second(function: Callable[[], object], images: int, device: torch.device, seconds: float) -> float:
    """Return images a second of a call on some images, called once to warm up and then for about `seconds`."""
    function()
    wait(device)
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < seconds:
        function()
        calls += 1
        wait(device)
    return calls * images / (time.perf_counter() - start)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# How far ours are from the published results -----------------------------------------------------------------------


def scores(detector: GroundingDino, pixels: torch.Tensor) -> torch.Tensor:
    """Return the logits [N, T] of all proposals of one image, before any is chosen."""
    model: Any = detector.network.model  # type: ignore[attr-defined]
    official = hasattr(model, "transformer")
    head = model.transformer.enc_out_class_embed if official else model.model.encoder_output_class_embed
    seen: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.inference_mode(), arithmetic(detector.device, detector.config.dtype):
        detector.network(pixels)
    hook.remove()
    return seen[0][0, :, : len(detector.prompt.input_ids)].float()


def detector_difference(expected: torch.Tensor, found: torch.Tensor) -> dict[str, float]:
    best = [some.max(-1).values for some in (expected, found)]
    count = min(900, len(best[0]))
    ranked = [some.topk(count) for some in best]
    values = ranked[0].values
    return {
        "logits_of_proposals": float((expected - found).abs().max()),
        "spread_of_logits": float(expected.std()),
        "smallest_step_between_chosen": float((values[:-1] - values[1:]).min()),
        "of_chosen_at_another_rank": int((ranked[0].indices != ranked[1].indices).sum()),
    }


def mask_iou(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    pairs = zip(expected, found, strict=True)
    return round(float(np.mean([(a & b).sum() / max((a | b).sum(), 1) for a, b in pairs])), 5)


# -------------------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", default="tiny", choices=["tiny", "full"])
    parser.add_argument("--encoding", default="square", choices=["square", "native"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="of ours [default: bfloat16 on CUDA]")
    parser.add_argument("--compile", action="store_true", help="compile SAM's encoder (CUDA)")
    parser.add_argument("--batch-size", default="auto")
    parser.add_argument("--images", default=8, type=int, help="of our way")
    parser.add_argument("--published", default=2, type=int, help="images of the published way, after one to warm up")
    parser.add_argument("--seconds", type=float, help="of each measurement from memory [default: 5 on CUDA, 0 else]")
    parser.add_argument("--weights", type=Path, help="keep the weights here, and take them from here if they are there")
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    options.dtype = options.dtype or ("bfloat16" if cuda else "float32")
    options.seconds = options.seconds if options.seconds is not None else (5.0 if cuda else 0.0)
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(options, Path(name), cuda), indent=1))


def measure(options: argparse.Namespace, folder: Path, cuda: bool) -> dict[str, Any]:
    begun = time.perf_counter()
    weights = options.weights or folder / "weights"
    if not (weights / "segmenter.pth").exists():
        make_weights(weights, options.size, options.device)
    images, found = make_images(options.images), make_boxes(max(options.images, options.published))
    write_frames(folder, images)
    files = [folder / f"{k:04}.png" for k in range(options.published)]
    for file, image in zip(files, np.resize(images, (len(files), *images.shape[1:])), strict=True):
        cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    prepared = time.perf_counter()

    slow = Published(
        SamConfig(
            detector=str(weights / "detector.pth"), segmenter=str(weights / "segmenter.pth"),
            tokenizer=str(weights / "detector"), batch_size=1,
        ),
        options.device, folder,
    )  # fmt: skip
    published = slow.rates(files, found[: len(files)])
    expected = slow(files, found[: len(files)])
    pixels = detector_input(images[:1], device=options.device)
    proposals = scores(slow.detector, pixels)
    del slow
    published_done = time.perf_counter()

    batch_size = options.batch_size if options.batch_size == "auto" else int(options.batch_size)
    config = SamConfig(
        detector=str(weights / "detector"), segmenter=str(weights / "segmenter"), batch_size=batch_size,
        dtype=options.dtype, encoding=options.encoding, boxes_at_once=128, compiled=options.compile,
    )  # fmt: skip
    exact = config.model_copy(update={"dtype": "float32", "compiled": False, "batch_size": 1})
    few = np.resize(images, (len(files), *images.shape[1:]))
    detector_differs = {"float32": detector_difference(proposals, scores(GroundingDino(exact, options.device), pixels))}
    iou = {"float32": mask_iou(expected, Sam(exact, options.device)(few, found[: len(few)]))}
    computer = GivenBoxes(config, folder / "frames.zarr", found, options.device)
    detector, segmenter = computer.models
    detector(images[:64])  # the batches are tried out, and SAM's encoder compiled
    segmenter(images[:64], found[: min(64, len(images))])
    sizes = {"detector": detector.batch.size, "segmenter": segmenter.batch.size}
    detector_differs["as_timed"] = detector_difference(proposals, scores(detector, pixels))
    iou["as_timed"] = mask_iou(expected, segmenter(few, found[: len(few)]))

    def rate(function: Callable[[], object], count: int) -> float:
        return per_second(function, count, detector.device, options.seconds)

    def batch_of(part: str) -> np.ndarray:
        return np.resize(images, (sizes[part], *images.shape[1:]))

    many, full = images[:64], batch_of("segmenter")
    boxes = [found[k % len(found)] for k in range(max(len(many), len(full)))]
    result: dict[str, dict[str, Any]] = {
        "detector": rates(
            published["detector"],
            rate(lambda: find(detector, many), len(many)),
            rate(detector_alone(detector, batch_of("detector")), sizes["detector"]),
        ),
        "segmenter": rates(
            published["segmenter"],
            rate(lambda: segmenter(many, boxes[: len(many)]), len(many)),
            rate(segmenter_alone(segmenter, full, boxes[: len(full)]), len(full)),
        ),
    }
    alone = [result[part]["network_alone_img_s"] for part in ("detector", "segmenter")]
    whole = end_to_end(computer, folder, len(images), options.device)
    result["end_to_end"] = rates(published["end_to_end"], whole, 1 / sum(1 / each for each in alone))
    result["detector"]["against_published"] = detector_differs
    result["segmenter"]["mask_iou_against_published"] = iou
    return {
        "benchmark": "grounded_sam",
        "machine": torch.cuda.get_device_name() if cuda else f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "weights": f"random, size {options.size}",
        "image": "x".join(map(str, IMAGE)),
        "boxes_per_image": BOXES,
        "dtype": config.dtype,
        "compiled": config.compiled,
        "batch_size": sizes,
        "encoding": config.encoding,
        "images": len(images),
        "published_images": len(files),
        **result,
        "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
        "seconds": {
            "weights_and_frames": round(prepared - begun, 1),
            "published": round(published_done - prepared, 1),
            "ours": round(time.perf_counter() - published_done, 1),
        },
    }


def rates(published: float, ours: float, alone: float) -> dict[str, Any]:
    return {
        "published_img_s": round(published, 3),
        "ours_img_s": round(ours, 3),
        "network_alone_img_s": round(alone, 3),
        "ours_over_published": round(ours / published, 2),
        "ours_over_network_alone": round(ours / alone, 3),
    }


if __name__ == "__main__":
    main()
