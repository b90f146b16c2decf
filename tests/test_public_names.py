from __future__ import annotations

import subprocess
import sys

import pytest

import vipocc


@pytest.mark.parametrize("name", vipocc.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(vipocc, name) is not None


def test_importing_vipocc_is_cheap() -> None:
    code = "import sys, vipocc; assert not {'torch', 'zarr', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = vipocc.nonsense
