from __future__ import annotations

import pickle

import pytest

from vipocc import errors
from vipocc.errors import DataError, NonFiniteError, VipoccError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VipoccError)]


def test_a_message_is_one_sentence_of_what_where_and_way_out() -> None:
    error = DataError("image is truncated.", where="a.png", fix="download it again.")
    assert str(error) == "image is truncated: a.png; download it again"
    assert str(DataError("bad")) == "bad"


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_the_way_between_processes(kind: type[VipoccError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what", where="there", fix="do this")))
    assert type(error) is kind
    assert (error.what, error.where, error.fix) == ("what", "there", "do this")


def test_a_users_mistake_exits_with_2_and_ours_with_1() -> None:
    assert DataError("x").exit_code == 2
    assert NonFiniteError("x").exit_code == 1
