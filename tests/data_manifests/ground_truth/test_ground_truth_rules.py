from __future__ import annotations

from vipocc.data_manifests.ground_truth.occupancy import BLIND_RANGE, OFFICIAL_TOLERANCE
from vipocc.data_manifests.ground_truth.rules import parse_slice_name, rule_digests, rule_values, slice_name


def test_rules_are_frozen() -> None:
    """A changed digest means other ground truth: raise the version, and stores of before are refused."""
    assert rule_digests() == {"official": "2d137dad028fa53f", "paper": "37b711c5fa00196f"}
    assert rule_values("official")["seen_and_occupied_at_most"] == OFFICIAL_TOLERANCE == 2
    assert rule_values("paper")["seen_and_occupied_at_most"] == 0
    assert rule_values("paper")["blind_range"] == BLIND_RANGE == 3.0


def test_names_and_back() -> None:
    for sweeps, rule, name in (
        (300, "official", "slice-300"),
        (300, "paper", "slice-300-paper"),
        (3, "paper", "slice-3-paper"),
    ):
        assert slice_name(sweeps, rule) == name  # type: ignore[arg-type]
        assert parse_slice_name(name) == (sweeps, rule)
    for name in ("slice-2", "slice-0", "slice-03", "slice-300-official", "slice-300-published", "exact", "slice-10000"):
        assert parse_slice_name(name) is None
