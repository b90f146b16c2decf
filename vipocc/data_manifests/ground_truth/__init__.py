"""Ground truth from LiDAR: sparse depth at an image size, and which cells of a horizontal slice are occupied.

Pure functions on arrays; reading manifests and writing stores is the caller's part.
"""
