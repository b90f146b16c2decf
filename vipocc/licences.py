"""Licences of the foundation models that users take, by hub id or by the name of the official file.

Where a model's card states a licence, the card wins; these tables are for cards and files that state none.
"""

from __future__ import annotations

import re
from pathlib import Path

HUB_LICENCES = {
    "depth-anything/depth-anything-v2-metric-outdoor-small-hf": "apache-2.0",
    "depth-anything/depth-anything-v2-metric-indoor-small-hf": "apache-2.0",
    "depth-anything/depth-anything-v2-metric-outdoor-base-hf": "cc-by-nc-4.0",
    "depth-anything/depth-anything-v2-metric-indoor-base-hf": "cc-by-nc-4.0",
    "depth-anything/depth-anything-v2-metric-outdoor-large-hf": "cc-by-nc-4.0",
    "depth-anything/depth-anything-v2-metric-indoor-large-hf": "cc-by-nc-4.0",
    "idea-research/grounding-dino-tiny": "apache-2.0",
    "idea-research/grounding-dino-base": "apache-2.0",
    "facebook/sam-vit-base": "apache-2.0",
    "facebook/sam-vit-large": "apache-2.0",
    "facebook/sam-vit-huge": "apache-2.0",
}
"""By lower-case hub id."""

FILE_LICENCES = {
    r"depth_anything_v2(_metric_(vkitti|hypersim))?_vits": "apache-2.0",
    r"depth_anything_v2(_metric_(vkitti|hypersim))?_vit[blg]": "cc-by-nc-4.0",
    r"groundingdino_swint_ogc": "apache-2.0",
    r"groundingdino_swinb_cogcoor": "apache-2.0",
    r"sam_vit_b_01ec64": "apache-2.0",
    r"sam_vit_l_0b3195": "apache-2.0",
    r"sam_vit_h_4b8939": "apache-2.0",
}
"""Of original checkpoint files, by name without its ending (patterns)."""


def known_licence(name: str) -> str:
    """Return the licence of a model by its hub id, its folder or its official file, `unknown` for any other."""
    found = HUB_LICENCES.get(name.lower())
    if found is None and ("/" not in name or Path(name).expanduser().is_dir()):
        # A folder filled by `hf download` usually keeps the repository's own name; another's repository means nothing.
        folder = "/" + Path(name).name.lower()
        found = next((licence for hub_id, licence in HUB_LICENCES.items() if hub_id.endswith(folder)), None)
    if found is None:
        stem = Path(name).stem.lower()
        found = next((licence for pattern, licence in FILE_LICENCES.items() if re.fullmatch(pattern, stem)), "unknown")
    return found
