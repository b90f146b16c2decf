"""What a record says of the instances' models and parameters."""

from __future__ import annotations

from typing import Any

from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam.engines import choose_engine, detector_sides, detector_weights, segmenter_weights
from vipocc.priors.grounded_sam.networks import DETECTOR, SEGMENTER
from vipocc.priors.grounded_sam.preprocessing import PREPROCESSING
from vipocc.priors.grounded_sam.prompt import prompt_text


def instances_fingerprint(config: SamConfig) -> dict[str, Any]:
    """Return everything that decides an image's instances but the image: both models and all parameters.

    Raises:
        CheckpointError: a model is absent, damaged or of another kind.
    """
    detector, segmenter = detector_weights(config), segmenter_weights(config)
    shortest, longest = detector_sides(config, detector)
    return {
        "detector": detector.provenance() | {"engine": choose_engine(config, config.detector, DETECTOR).name},
        "segmenter": segmenter.provenance() | {"engine": choose_engine(config, config.segmenter, SEGMENTER).name},
        "licence": " + ".join(dict.fromkeys((detector.licence, segmenter.licence))),
        "prompt": prompt_text(config.classes),
        "merge": {phrase: entry.label for entry in config.classes for phrase in entry.phrases},
        "preprocessing": PREPROCESSING,
        "box_threshold": config.box_threshold,
        "text_threshold": config.text_threshold,
        "nms_iou": config.nms_iou,
        "shortest_side": shortest,
        "longest_side": longest,
        "encoding": config.encoding,
        "dtype": config.dtype,
    }
