"""Figures of the paper drawn from our own results: one function a figure, from plain arrays to an image."""
