"""Visual priors, computed offline: metric pseudo-depth, instances, and the ray-patch anchors drawn from them."""
