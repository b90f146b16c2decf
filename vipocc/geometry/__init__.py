"""Cameras, poses, projection and warping: pure functions that know nothing of datasets, stores or networks.

Calibration is NumPy in float64 (`cameras`, `poses`); what a gradient passes through is torch (`projection`, `warping`);
`ndc` serves both. Frames are OpenCV's (x right, y down, z forward), metres, `target_from_source` as a 4x4 matrix.
"""
