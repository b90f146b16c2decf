"""Small foundation models that lie in the package, trained on the synthetic world by `vipocc.apps.embedded`.

They have the architectures and the file formats of the real ones and are read by the same code; `embedded:depth`,
`embedded:detector` and `embedded:segmenter` name them wherever a hub id or a folder may stand. They know the streets of
the synthetic world and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from vipocc.errors import CheckpointError

EmbeddedModel = Literal["depth", "detector", "segmenter"]

PREFIX = "embedded:"
MODELS: tuple[EmbeddedModel, ...] = get_args(EmbeddedModel)
FOLDER = Path(__file__).parent
"""Holds one folder for each model, in transformers' layout with a card and the record of its training."""

OVERRIDES = (
    "priors.kinds.depth=depth-anything-v2",
    "priors.kinds.instances=grounded-sam",
    "priors.depth.model=embedded:depth",
    "priors.sam.detector=embedded:detector",
    "priors.sam.segmenter=embedded:segmenter",
)
"""What a workspace says whose priors these models make: the sources of real priors, with other weights."""


def is_embedded(name: str) -> bool:
    """Return whether `name` asks for a model of the package."""
    return name.startswith(PREFIX)


def embedded_folder(name: str, option: str) -> Path:
    """Return the folder of the model called `name`, such as `embedded:depth`.

    Args:
        name: begins with `embedded:`.
        option: the command-line option that names this model, for messages.

    Raises:
        CheckpointError: there is no model of that name, or this package was made without its weights.
    """
    model = name.removeprefix(PREFIX)
    if model not in MODELS:
        choices = ", ".join(PREFIX + one for one in MODELS)
        raise CheckpointError(f"there is no embedded model '{model}'", fix=f"give {option} one of {choices}")
    folder = FOLDER / model
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"this vipocc was packaged without the weights of '{name}'",
            where=folder,
            fix=f"give {option} another model, or use --prior simulated on the synthetic world; "
            "docs/priors.md says how the embedded models are trained",
        )
    return folder
