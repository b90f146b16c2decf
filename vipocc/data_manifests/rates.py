"""What a row of each prepared store takes, measured: for the estimates of preparation and of the check.

Seconds are of one core of a server of the 2020s, bytes those of the compressed store.
"""

from __future__ import annotations

#: Street images: bytes of a stored pixel; seconds to decode a raw pixel and to write a prepared one.
FRAME_BYTES_PER_PIXEL = 2.4
DECODE_SECONDS_PER_PIXEL = 32e-9
WRITE_SECONDS_PER_PIXEL = 40e-9

#: Sparse LiDAR depth, and what one sweep takes to be read and projected, into it or into occupancy.
LIDAR_BYTES_PER_PIXEL = 1.1
SWEEP_SECONDS = 0.03

OCCUPANCY_BYTES_PER_ROW = 2500.0
