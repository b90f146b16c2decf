"""Predicting depth and occupancy from anybody's pictures: cameras, framing, grids, files and the run itself."""
