"""Single-image 3D occupancy from driving video: priors, training and evaluation of the ViPOcc method."""

__version__ = "0.1.0"
