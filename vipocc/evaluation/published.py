"""Numbers that others published, for the rows beside ours. None is measured here."""

from __future__ import annotations

from vipocc.evaluation.metrics import DEPTH, OBJECT, SCENE

NOTE = "published on KITTI-360"

OCCUPANCY: dict[str, dict[str, float]] = {
    "ViPOcc": dict(zip((*SCENE, *OBJECT), (0.927, 0.713, 0.686, 0.790, 0.685, 0.643), strict=True)),
    "BTS": dict(zip((*SCENE, *OBJECT), (0.923, 0.690, 0.644, 0.791, 0.689, 0.601), strict=True)),
    "KYN": dict(zip((*SCENE, *OBJECT), (0.92, 0.70, 0.66, 0.79, 0.69, 0.61), strict=True)),
}
"""Tables 1 and 2, the first two to the digits that the released evaluation gives."""

DEPTHS: dict[str, dict[str, float]] = {
    "ViPOcc rendered": dict(zip(DEPTH, (0.097, 0.446, 3.383, 0.188, 0.886, 0.956, 0.980), strict=True)),
    "ViPOcc branch": dict(zip(DEPTH, (0.097, 0.441, 3.427, 0.188, 0.883, 0.957, 0.980), strict=True)),
    "BTS": dict(zip(DEPTH, (0.103, 0.492, 3.007, 0.194, 0.891, 0.958, 0.978), strict=True)),
    "KYN": {"abs_rel": 0.107, "rmse_log": 0.197, "a1": 0.880},
    "Depth Anything V2": dict(zip(DEPTH, (0.586, 3.743, 6.653, 0.477, 0.071, 0.598, 0.889), strict=True)),
    "Depth Anything V2, median-scaled": dict(
        zip(DEPTH, (0.142, 0.533, 3.297, 0.209, 0.832, 0.952, 0.981), strict=True)
    ),
}
"""Table 4, with the other columns as the released evaluation gives them."""

SAMPLER: dict[str, dict[str, float]] = {
    "random": {"n_v": 3890.0, "psi_v": 0.0717},
    "SNOG": {"n_v": 4100.0, "psi_v": 0.3683},
}
"""Table 10."""
