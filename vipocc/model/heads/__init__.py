"""Density heads: what turns features and points into densities, and how one is chosen by name."""
