from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from model_cases import SMALL

from vipocc import config as configuration
from vipocc.model.card import model_card
from vipocc.model.network import ViPOcc


def whole(*overrides: str, profile: str = "paper") -> dict[str, Any]:
    return configuration.as_dict(configuration.load("vipocc", profile=profile, overrides=overrides))


def test_a_card_says_what_the_configuration_says() -> None:
    card = model_card(whole("training.epochs=7", profile="official"), 47_022_322)
    for row in (
        "| parameters | 47,022,322 |",
        "| profile | official |",
        "| pixel convention | official |",
        "| image size | 192x640 |",
        "| encoder | resnet50 |",
        "| distances | 3 to 80 m |",
        "| depth branch | inverse_residual |",
        "| its encoder | resnet18 |",
        "| epochs | 7 |",
        "| batch size | 8 |",
        "| learning rate | 0.0001 |",
    ):
        assert row in card.splitlines()
    assert "resnet18 " not in model_card(whole("model.depth_branch.kind=none"), 1)


def test_its_head_is_yaml_that_claims_no_licence() -> None:
    _, head, _ = model_card(whole(), 1).split("---\n", 2)
    values = yaml.safe_load(head)
    assert values["library_name"] == "vipocc"
    assert "license" not in values


def test_licences_of_the_priors_are_said() -> None:
    large = model_card(whole(), 1)
    assert "Depth-Anything-V2-Metric-Outdoor-Large-hf` (licence cc-by-nc-4.0)" in large
    assert "`facebook/sam-vit-huge` (licence apache-2.0)" in large
    small = model_card(whole("priors.depth.model=depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf"), 1)
    assert "Outdoor-Small-hf` (licence apache-2.0)" in small
    assert "cc-by-nc" not in small
    assert "(licence unknown)" in model_card(whole("priors.depth.model=somebody/else"), 1)


def test_priors_that_took_no_part_are_not_named() -> None:
    uniform = ("training.sampler=uniform", "training.depth_sampler=uniform")
    card = model_card(whole(*uniform), 1)
    assert "Depth-Anything" in card
    assert "sam-vit" not in card
    alone = model_card(whole("model.depth_branch.kind=none", *uniform), 1)
    assert "Depth-Anything" not in alone
    assert "Priors: none took part." in alone


def test_what_is_not_recorded_is_said_to_be_so(tmp_path: Path) -> None:
    ViPOcc(SMALL).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "| image size | not recorded |" in card
    assert card.lower().count("not recorded") == 4


def test_a_card_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    ViPOcc(SMALL).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("iteration", [None, 1500])
def test_an_imported_models_card_names_the_file(iteration: int | None) -> None:
    source = {"system": "BTS", "file": "x.pt", "sha256": "ab", "iteration": iteration}
    card = model_card({"preset": "bts", "model": whole()["model"]}, 1, source)
    assert card.count("# BTS") == 1
    assert "`x.pt` (SHA-256 `ab`)" in card
    assert ("1,500 iterations" in card) == (iteration is not None)
    assert "whose authors' terms hold" in card
    assert "Priors: none took part" in card
    assert "cc-by-nc-4.0" in model_card({"model": whole()["model"]}, 1, {**source, "system": "ViPOcc"})


def test_a_card_names_the_source_that_the_configuration_names() -> None:
    chosen = whole("priors.kinds.depth=simulated", "priors.kinds.instances=grounded-sam-2")
    card = model_card(chosen, 1)
    assert "- Pseudo-depth: simulated from the synthetic world's exact truth." in card
    assert "- Instances: by the source `grounded-sam-2`, whose terms hold." in card
    assert "licence cc-by-nc-4.0" in model_card(whole(), 1), "by default the large model's"
