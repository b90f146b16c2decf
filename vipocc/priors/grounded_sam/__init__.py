"""Instances by Grounding DINO (boxes and classes) and SAM (masks): "Grounded-SAM"."""
