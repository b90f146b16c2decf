"""The synthetic world: procedural streets written in KITTI-360's own files, with exact truth beside them."""
