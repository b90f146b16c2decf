import pytest
import torch

from vipocc.training.packing import Packed, Rooms, Shapes

SHAPES: Shapes = {"a": ((3,), torch.uint8), "b": ((2, 5), torch.float32), "c": ((), torch.bool)}


def test_tensors_lie_in_one_memory_and_are_copied_at_once() -> None:
    for packed in (Packed.allocate(SHAPES), *Rooms.allocate(SHAPES, 2)):
        tensors = packed.tensors()
        assert {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()} == SHAPES
        for number, value in enumerate(tensors.values(), 1):
            value.fill_(number)
        for again in (packed.clone(), packed.to(torch.device("cpu"))):
            assert [float(value.double().mean()) for value in again.tensors().values()] == [1, 2, 1]
        assert packed.clone().memory.data_ptr() != packed.memory.data_ptr()
        assert len({value.untyped_storage().data_ptr() for value in tensors.values()}) == 1
        assert all(value.data_ptr() % 16 == 0 for value in tensors.values())


def test_rooms_share_a_memory_and_do_not_overlap() -> None:
    rooms = Rooms.allocate(SHAPES, 3)
    assert len(rooms) == 3
    for number, room in enumerate(rooms):
        assert room.memory.is_shared()
        for value in room.tensors().values():
            value.fill_(number == 1)
    assert [float(room.tensors()["b"].sum()) for room in rooms] == [0, 10, 0]
    assert len({room.memory.untyped_storage().data_ptr() for room in rooms}) == 1


@pytest.mark.parametrize("wrong", [{"d": torch.zeros(3)}, {"a": torch.zeros(3)}, {"b": torch.zeros(5, 2)}])
def test_what_does_not_fit_is_refused(wrong: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="there is no room for"):
        Packed.allocate(SHAPES).copy_from(wrong)
