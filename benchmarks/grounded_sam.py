"""Time Grounding DINO and SAM the published way against ours; prints one JSON object.

Published: the original packages, one image after another, float32, the text encoded anew for each image, SAM's square
padded, all boxes of an image decoded and enlarged at full size. Ours: transformers, batched, bfloat16 on CUDA, the text
encoded once, boxes of all images decoded together. Both take images uint8 of 192x640 from memory. The detector's time
ends with its 900 boxes and their tokens' probabilities (random weights are sure of all of them, real ones of a few, so
the choice among them is not timed), SAM's with masks of 192x640. Weights are random, of the published sizes (Swin-T,
ViT-H) and made on the spot; eight given boxes an image are segmented, as random detectors find none worth segmenting.

The weights of both ways are the same, so the JSON also says how far ours are from the published results, in float32
and in the arithmetic that was timed. Random weights make masks of noise, whose borders are everywhere: only float32
with the square encoding can agree closely.

Usage: python benchmarks/grounded_sam.py [--device cuda] [--size full] [--encoding native] [--images 64] [--batch 16]
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam.conversion import folder_to_pth
from vipocc.priors.grounded_sam.detector import GroundingDino
from vipocc.priors.grounded_sam.preprocessing import masks_to_image_reference, segmenter_input, segmenter_size
from vipocc.priors.grounded_sam.records import Detections
from vipocc.priors.grounded_sam.segmenter import Sam
from vipocc.priors.tiny import make_tiny_grounding_dino, make_tiny_sam
from vipocc.priors.weights import quiet_transformers

BOXES = 8


def per_second(function: Callable[[], Any], count: int, device: str, repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats + 1):  # the first call warms up and cannot be the best
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return round(count / best, 3)


def make_weights(folder: Path, size: str) -> None:
    """Write random weights of the published sizes; the tokenizer is the tiny one's, padded to BERT's vocabulary."""
    make_tiny_grounding_dino(folder / "detector", width=256)
    if size == "tiny":
        make_tiny_sam(folder / "segmenter")
        return
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, SamConfig, SamModel, SwinConfig

    torch.manual_seed(0)
    swin = SwinConfig(
        embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, image_size=224,
        out_indices=[2, 3, 4],
    )  # fmt: skip
    vit = {
        "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "mlp_dim": 5120,
        "global_attn_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    with quiet_transformers():
        for part, model in (
            ("detector", GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin))),
            ("segmenter", SamModel(SamConfig(vision_config=vit))),
        ):
            for layer in model.modules():
                # As drawn by default signals fade, and the answer is a constant plus rounding.
                if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                    convolved = isinstance(layer, torch.nn.ConvTranspose2d)
                    fan_in = len(layer.weight) if convolved else layer.weight[0].numel()
                    torch.nn.init.normal_(layer.weight, std=0.7 / fan_in**0.5)
            model.save_pretrained(folder / part)


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


def time_detectors(published: SamConfig, ours: SamConfig, images: np.ndarray, few: int, options: Any) -> dict[str, Any]:
    device = options.device
    slow = GroundingDino(published, device)
    restore_text(slow, device)
    singles = [images[k : k + 1] for k in range(few)]
    result = {
        "published_detector_per_s": per_second(
            lambda: [slow.infer(single) for single in singles], few, device, options.repeats
        )
    }
    probabilities, boxes = slow.infer(singles[0])
    exact = GroundingDino(ours.model_copy(update={"dtype": "float32"}), device).infer(singles[0])
    result["detector_difference_float32"] = {
        "probabilities": float(np.abs(probabilities - exact[0]).max()),
        "boxes": float(np.abs(boxes - exact[1]).max()),
    }
    fast = GroundingDino(ours, device)
    if options.compile:
        fast.network.model = torch.compile(fast.network.model)  # type: ignore[attr-defined]
    batches = [images[start : start + options.batch] for start in range(0, len(images), options.batch)]
    result["detector_per_s"] = per_second(
        lambda: [fast.infer(batch) for batch in batches], len(images), device, options.repeats
    )
    result["detector_ratio"] = round(result["detector_per_s"] / result["published_detector_per_s"], 2)
    return result


def time_segmenters(
    published: SamConfig, ours: SamConfig, images: np.ndarray, boxes: np.ndarray, few: int, options: Any
) -> dict[str, Any]:
    device, (height, width) = options.device, images.shape[1:3]
    found = [Detections(each, np.ones(BOXES, np.float32), np.zeros(BOXES, np.int16)) for each in boxes]
    slow = Sam(published, device)
    inside = segmenter_size(height, width, slow.side)
    factor = np.array([inside[1] / width, inside[0] / height] * 2)

    def one_by_one() -> list[np.ndarray]:
        masks = []
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            for image, some in zip(images[:few], boxes, strict=False):
                embedding = slow.network.encode(segmenter_input(image[None], slow.side, device=device))
                scaled = torch.from_numpy((some * factor).astype(np.float32)).to(device)
                owners = torch.zeros(len(some), dtype=torch.long, device=device)
                logits = slow.network.decode(embedding, owners, scaled)
                masks.append(masks_to_image_reference(logits, height, width, slow.side).cpu().numpy())
        return masks

    result: dict[str, Any] = {
        "published_segmenter_per_s": per_second(one_by_one, few, device, options.repeats),
        "mask_iou": {},
    }
    reference = one_by_one()
    for name, config in (("float32", ours.model_copy(update={"dtype": "float32"})), ("timed", ours)):
        fast = Sam(config, device)
        got = fast(images[:few], found[:few])
        result["mask_iou"][name] = round(
            float(np.mean([(a & b).sum() / max((a | b).sum(), 1) for a, b in zip(got, reference, strict=True)])), 5
        )
    if options.compile:
        fast.network.model.vision_encoder = torch.compile(fast.network.model.vision_encoder)  # type: ignore[attr-defined]
    result["segmenter_per_s"] = per_second(lambda: fast(images, found), len(images), device, options.repeats)
    result["segmenter_ratio"] = round(result["segmenter_per_s"] / result["published_segmenter_per_s"], 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--size", default="tiny", choices=["tiny", "full"])
    parser.add_argument("--encoding", default="square", choices=["square", "native"])
    parser.add_argument("--images", default=8, type=int)
    parser.add_argument("--published-images", default=4, type=int)
    parser.add_argument("--batch", default=4, type=int)
    parser.add_argument("--repeats", default=2, type=int)
    parser.add_argument("--compile", action="store_true", help="compile the detector and SAM's encoder")
    parser.add_argument("--weights", type=Path, help="keep the weights here, and take them from here if they are there")
    parser.add_argument("--only", choices=["detector", "segmenter"])
    options = parser.parse_args()
    device, dtype = options.device, "bfloat16" if options.device == "cuda" else "float32"
    few = min(options.published_images, options.images)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.images, 24, 80, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    low = rng.uniform(0, 0.6, (options.images, BOXES, 2))
    high = low + rng.uniform(0.1, 0.4, low.shape)
    boxes = (np.concatenate([low, high], -1) * [640, 192, 640, 192]).astype(np.float32)

    with tempfile.TemporaryDirectory() as name:
        folder = options.weights or Path(name)
        if not (folder / "segmenter.pth").exists():
            make_weights(folder, options.size)
            for part in ("detector", "segmenter"):
                folder_to_pth(str(folder / part), folder / f"{part}.pth")
        published = SamConfig(
            detector=str(folder / "detector.pth"), segmenter=str(folder / "segmenter.pth"),
            tokenizer=str(folder / "detector"), batch_size=1,
        )  # fmt: skip
        ours = SamConfig(
            detector=str(folder / "detector"), segmenter=str(folder / "segmenter"), batch_size=options.batch,
            dtype=dtype, encoding=options.encoding, boxes_at_once=options.batch * BOXES,
        )  # fmt: skip
        result: dict[str, Any] = {
            "benchmark": "grounded_sam",
            "machine": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
            "size": options.size,
            "image_size": list(images.shape[1:3]),
            "boxes": BOXES,
            "batch": options.batch,
            "dtype": dtype,
            "encoding": options.encoding,
            "compiled": options.compile,
        }
        if options.only != "segmenter":
            result |= time_detectors(published, ours, images, few, options)
        if options.only != "detector":
            result |= time_segmenters(published, ours, images, boxes, few, options)
    print(json.dumps(result))


def restore_text(detector: GroundingDino, device: str) -> None:
    from transformers import BertConfig, BertModel

    model: Any = detector.network.model  # type: ignore[attr-defined]
    features = model.bert
    width = features.features.shape[-1]
    config = BertConfig(hidden_size=width, num_attention_heads=width // 64, intermediate_size=4 * width)
    config.num_hidden_layers = 12 if width == 768 else 1
    model.bert = PublishedText(BertModel(config).eval().to(device), features)


if __name__ == "__main__":
    main()
