from __future__ import annotations

import pytest

from vipocc.errors import UsageError
from vipocc.evaluation.protocols import (
    DDAD_DEPTH,
    EIGEN_DEPTH,
    EXACT_DEPTH,
    LIDAR_DEPTH,
    DepthProtocol,
    depth_protocol,
    require_truth,
)

DIGESTS = {
    "lidar": "8e9a816a7cd7de2c",
    "exact": "486e17b09a5d0b7d",
    "eigen": "d84742261f03a3b0",
    "ddad": "de28d5de821f7ecd",
}


def test_depth_protocols_are_frozen() -> None:
    """A changed digest means a changed protocol: raise its version and say so in the changelog."""
    assert {one.name: one.digest for one in (LIDAR_DEPTH, EXACT_DEPTH, EIGEN_DEPTH, DDAD_DEPTH)} == DIGESTS


@pytest.mark.parametrize(
    ("dataset", "protocol"),
    [
        ("kitti-360", LIDAR_DEPTH),
        ("synthetic", LIDAR_DEPTH),
        ("kitti-raw", EIGEN_DEPTH),
        ("ddad", DDAD_DEPTH),
    ],
)
def test_each_dataset_has_its_own_protocol(dataset: str, protocol: DepthProtocol) -> None:
    assert depth_protocol(None, dataset) is protocol
    assert depth_protocol(protocol.name, "kitti-360") is protocol
    require_truth(dataset, protocol)


def test_protocols_stay_with_their_datasets() -> None:
    for dataset, protocol in (("kitti-360", EIGEN_DEPTH), ("kitti-raw", DDAD_DEPTH), ("synthetic", EIGEN_DEPTH)):
        with pytest.raises(UsageError, match=f"defined on {protocol.dataset}, not on {dataset}"):
            require_truth(dataset, protocol)
    for dataset in ("kitti-360", "kitti-raw", "ddad"):
        with pytest.raises(UsageError, match="no exact truth"):
            require_truth(dataset, EXACT_DEPTH)
        require_truth(dataset, LIDAR_DEPTH)
    with pytest.raises(UsageError, match="--protocol lidar or exact"):
        depth_protocol("garg", "kitti-raw")


def test_only_ddad_is_scaled_unless_asked() -> None:
    assert [one.scaling for one in (LIDAR_DEPTH, EXACT_DEPTH, EIGEN_DEPTH, DDAD_DEPTH)] == ["none"] * 3 + ["median"]
