import pytest

from vipocc.errors import ConfigError
from vipocc.training.config import TrainingConfig
from vipocc.training.schedule import learning_rate, total_samples


def test_the_paper_decays_once_for_the_last_ten_of_25_epochs() -> None:
    config, keys = TrainingConfig(), 98_008
    total = total_samples(config, keys)
    assert total == 25 * keys
    rates = [learning_rate(config, samples, total) for samples in (0, 15 * keys - 1, 15 * keys, total - 1)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])


def test_batch_size_does_not_move_the_schedule() -> None:
    keys = 1000
    totals = {total_samples(TrainingConfig(batch_size=size), keys) for size in (1, 8, 16)}
    assert totals == {25_000}


def test_the_released_code_decays_every_so_many_samples() -> None:
    config = TrainingConfig(decay_every=960_000)
    total = total_samples(config, 98_008)
    rates = [learning_rate(config, samples, total) for samples in (959_999, 960_000, 1_920_000)]
    assert rates == pytest.approx([1e-4, 1e-5, 1e-6])


def test_steps_set_the_length_and_no_decay_is_possible() -> None:
    config = TrainingConfig(max_steps=10, batch_size=4, decay_last=0.0)
    assert total_samples(config, 7) == 40
    assert learning_rate(config, 39, 40) == config.learning_rate
    assert total_samples(TrainingConfig(epochs=0.5), 7) == 4


def test_odd_patches_are_refused() -> None:
    from vipocc import config as configuration

    with pytest.raises(ConfigError, match="patch_size must be even"):
        configuration.validate({"patch_size": 7}, TrainingConfig)
