from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from vipocc.errors import CheckpointError
from vipocc.torch_files import read_torch_file


def read(path: Path, numbers: bool = True) -> Any:
    return read_torch_file(path, again="get it again", trust="convert it", numbers=numbers)


@pytest.mark.parametrize("name", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("zipped", [True, False])
def test_numpys_scalars_come_back_as_numbers(tmp_path: Path, name: str, zipped: bool) -> None:
    held = {
        "model": OrderedDict(a=torch.ones(2)),
        "best": np.float64(0.0972),
        "rate": np.float32(0.5),
        "iteration": np.int64(-306_275),
        "small": np.uint8(255),
        "done": np.bool_(True),
        "big endian": np.dtype(">f8").type(3.0).astype(">f8"),
    }
    path = tmp_path / "x.pt"
    torch.save(held, path, pickle_module=_renaming(name), _use_new_zipfile_serialization=zipped)
    assert f"c{name}\nscalar".encode() in path.read_bytes()
    found = read(path)
    assert torch.equal(found["model"]["a"], torch.ones(2))
    wanted = {"best": 0.0972, "rate": 0.5, "iteration": -306_275, "small": 255, "done": True, "big endian": 3.0}
    assert {key: found[key] for key in wanted} == wanted
    assert all(type(found[key]) is type(value) for key, value in wanted.items())
    with pytest.raises(CheckpointError, match="asks for 'numpy"):
        read(path, numbers=False)


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, None], dtype=object),
        np.zeros(3),
        np.str_("text"),
        np.datetime64("2024-01-01"),
        np.void(b"abc"),
        np.array((1, 2.0), dtype=[("x", "i4"), ("y", "f8")])[()],
        np.dtype("O"),
    ],
)
def test_other_things_of_numpys_are_refused_by_name(tmp_path: Path, value: object) -> None:
    torch.save({"a": torch.ones(1), "extra": value}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="numpy") as caught:
        read(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_what_is_read_with_numbers_is_not_read_afterwards_without(tmp_path: Path) -> None:
    torch.save({"best": np.float64(1.0)}, tmp_path / "x.pt")
    read(tmp_path / "x.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "x.pt", weights_only=True)


def test_a_web_page_in_the_place_of_a_file_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_text("\n<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(CheckpointError, match=r"web page.*get it again"):
        read(tmp_path / "x.pt")


def _renaming(name: str) -> Any:
    """A pickle module that writes numpy's scalars as the version with that module name does."""

    class Module:
        __name__ = "pickle"
        dumps, loads, Unpickler, HIGHEST_PROTOCOL = pickle.dumps, pickle.loads, pickle.Unpickler, 2

        class Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
            def save_global(self, obj: Any, name: str | None = None) -> None:
                if getattr(obj, "__module__", "") == "numpy._core.multiarray":
                    self.write(f"c{_NAME}\n{obj.__name__}\n".encode())
                    self.memoize(obj)
                else:
                    super().save_global(obj, name)

            dispatch: ClassVar[dict[type, Any]] = {**pickle._Pickler.dispatch, type(len): save_global}  # type: ignore

        @staticmethod
        def dump(obj: Any, file: Any, protocol: int = 2) -> None:
            Module.Pickler(file, protocol=protocol).dump(obj)

    _NAME = name
    return Module
