"""Metric pseudo-depth by Depth Anything V2."""
