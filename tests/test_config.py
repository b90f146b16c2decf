from __future__ import annotations

from pathlib import Path

import pytest

from vipocc import config
from vipocc.errors import ConfigError


@pytest.mark.parametrize("preset", config.available())
@pytest.mark.parametrize("profile", config.available("profile"))
def test_every_preset_loads_under_every_profile(preset: str, profile: str) -> None:
    loaded = config.load(preset, profile=profile)
    assert loaded.profile == profile
    assert loaded.preset == preset


def test_an_unknown_key_is_refused_with_the_nearest_known_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown configuration key 'training.batchsize'; did you mean"):
        config.load("demo", overrides=["training.batchsize=3"])


def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'training'"):
        config.load("demo", overrides=["trainin.batch_size=3"])


def test_a_wrong_value_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"'training.batch_size' cannot be 'many'"):
        config.load("demo", overrides=["training.batch_size=many"])


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not an override; write -o"):
        config.load("demo", overrides=["training.batch_size"])


def test_unknown_preset_and_profile_name_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'ablations/full'"):
        config.load("ablation/full")
    with pytest.raises(ConfigError, match=r"there is no preset 'nonsense'; use --preset with") as caught:
        config.load("nonsense")
    listed = str(caught.value).splitlines()[1:]
    assert [line.split()[0] for line in listed] == config.available()
    assert all(len(line.split()) > 3 and len(line) <= 120 for line in listed), "each with what it is"
    with pytest.raises(ConfigError, match="use --profile with one of official, paper"):
        config.load("demo", profile="nonsense")


def test_overrides_win_over_the_preset_and_the_preset_over_the_profile(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("profile: official\nseed: 5\ntraining: {batch_size: 3}\n")
    loaded = config.load(str(mine), overrides=["training.batch_size=4"])
    assert (loaded.seed, loaded.training.batch_size, loaded.profile) == (5, 4, "official")


def test_a_saved_configuration_loads_to_itself(tmp_path: Path) -> None:
    first = config.load("demo", overrides=["seed=9"])
    config.save(first, tmp_path / "config.yaml")
    assert config.load(base=config.read(tmp_path / "config.yaml")) == first


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"not a configuration"):
        config.load(str(bad))


def test_schemas_are_frozen() -> None:
    loaded = config.load("demo")
    with pytest.raises(ValueError, match="frozen"):
        loaded.seed = 1


def test_a_preset_stands_on_another_and_knows_profiles(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "summary: mine\nbase: bts\ntraining: {batch_size: 3}\nprofiles: {official: {training: {batch_size: 5}}}\n"
    )
    paper, official = config.load(str(mine)), config.load(str(mine), profile="official")
    assert paper.model.depth_branch.kind == official.model.depth_branch.kind == "none"
    assert (paper.training.batch_size, official.training.batch_size) == (3, 5)
    assert paper.preset == str(mine)
    assert config.load(str(mine), profile="official", overrides=["training.batch_size=7"]).training.batch_size == 7


def test_a_preset_that_stands_on_itself_is_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(f"base: {second}\n")
    second.write_text(f"base: {first}\n")
    with pytest.raises(ConfigError, match="a preset cannot stand on"):
        config.load(str(first))


@pytest.mark.parametrize("command", ["train", "priors depth", "config show"])
def test_commands_list_the_presets_when_one_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    from vipocc.cli import run
    from vipocc.workspace import Workspace

    Workspace.create(tmp_path, "synthetic", tmp_path / "world", "demo")
    assert run([*command.split(), "-C", str(tmp_path), "--preset", "pixelnerv"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'pixelnerf'" in said
    assert "bts_snog" in said
