"""What a record says of the instances' models and parameters."""

from __future__ import annotations

from typing import Any

from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam.detector import detector_weights
from vipocc.priors.grounded_sam.preprocessing import PREPROCESSING
from vipocc.priors.grounded_sam.prompt import prompt_text
from vipocc.priors.grounded_sam.segmenter import segmenter_weights


def instances_fingerprint(config: SamConfig) -> dict[str, Any]:
    """Return everything that decides an image's instances but the image: both models and all parameters.

    Raises:
        CheckpointError: a model is absent, damaged or of another kind.
    """
    detector, segmenter = detector_weights(config)[0], segmenter_weights(config)[0]
    return {
        "source": "transformers",
        "detector": detector.provenance(),
        "segmenter": segmenter.provenance(),
        "licence": " + ".join(dict.fromkeys((detector.licence, segmenter.licence))),
        "prompt": prompt_text(config.classes),
        "merge": {phrase: entry.label for entry in config.classes for phrase in entry.phrases},
        "preprocessing": PREPROCESSING,
        "box_threshold": config.box_threshold,
        "text_threshold": config.text_threshold,
        "nms_iou": config.nms_iou,
        "shortest_side": config.shortest_side,
        "longest_side": config.longest_side,
        "dtype": config.dtype,
    }
