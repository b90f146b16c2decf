from __future__ import annotations

from pathlib import Path

from vipocc.licences import known_licence


def test_models_are_known_by_hub_id_folder_and_official_file(tmp_path: Path) -> None:
    assert known_licence("Depth-Anything/Depth-Anything-V2-Metric-Outdoor-Small-hf") == "apache-2.0"
    assert known_licence("depth-anything/Depth-Anything-V2-Metric-Outdoor-Large-hf") == "cc-by-nc-4.0"
    assert known_licence("depth_anything_v2_metric_vkitti_vitl.pth") == "cc-by-nc-4.0"
    folder = tmp_path / "sam-vit-huge"
    folder.mkdir()
    assert known_licence(str(folder)) == known_licence("sam-vit-huge") == "apache-2.0"


def test_what_others_publish_under_a_known_name_is_unknown() -> None:
    assert known_licence("somebody/sam-vit-huge") == "unknown"
    assert known_licence("mine.pt") == "unknown"
