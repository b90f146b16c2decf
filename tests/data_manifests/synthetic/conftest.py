import pytest
from small_worlds import small_config

from vipocc.data_manifests.synthetic.generate import generate


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A synthetic world of two drives of four and three frames, with its configuration."""
    root = tmp_path_factory.mktemp("world")
    config = small_config()
    generate(root, config)
    return root, config


@pytest.fixture(scope="session")
def larger_world(tmp_path_factory):
    """One drive of two frames at twice the size."""
    root = tmp_path_factory.mktemp("larger_world")
    config = small_config(test_drives=0, train_frames=2, scale=0.3)
    generate(root, config)
    return root, config
