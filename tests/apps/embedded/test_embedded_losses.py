"""Losses of the embedded models: right answers cost nothing, matching is what it says, pictures keep their truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vipocc.apps.embedded.batches import Batches
from vipocc.apps.embedded.check import average_precision, relative_error, row_depths
from vipocc.apps.embedded.depth import depth_loss
from vipocc.apps.embedded.matching import (
    Things,
    costs,
    generalised_overlap,
    match_often,
    match_once,
    set_losses,
)
from vipocc.apps.embedded.pictures import KINDS, Pictures, take_pictures
from vipocc.apps.embedded.prompts import draw_phrases, tokenise
from vipocc.apps.embedded.segmenter import choose_things, mask_loss, near_boxes
from vipocc.apps.embedded.vocabulary import PHRASES, SIZE, tokenizer, vocabulary
from vipocc.apps.embedded.worlds import Shoot, held_out_shoots, training_shoots
from vipocc.data_manifests.synthetic.config import WorldConfig
from vipocc.data_manifests.synthetic.layout import drives

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    config = WorldConfig(
        seed=5, train_drives=1, val_drives=0, test_drives=0, train_frames=12, scale=0.15, antialias=False, shadows=False
    )  # type: ignore[call-arg]
    return take_pictures([Shoot(config, 0, (2, 7), ("image_00", "image_01"))], 1)


def test_depth_loss_is_zero_for_the_truth_and_grows_with_its_ratio() -> None:
    truth = torch.rand(2, 24, 40, generator=torch.Generator().manual_seed(0)) * 50 + 2
    truth[:, :4] = torch.inf
    right = torch.where(torch.isinf(truth), torch.tensor(80.0), truth)
    assert depth_loss(right, truth) == 0
    once, twice = (float(depth_loss(right * ratio, truth)) for ratio in (1.1, 1.21))
    assert twice == pytest.approx(2 * once, rel=1e-4)  # a common factor has no slope
    noisy = right * torch.exp(0.1 * torch.randn(right.shape, generator=torch.Generator().manual_seed(1)))
    assert float(depth_loss(noisy, truth)) > once


def test_generalised_overlap_of_known_boxes() -> None:
    unit = torch.tensor([0.5, 0.5, 1.0, 1.0])
    half = torch.tensor([0.25, 0.5, 0.5, 1.0])
    away = torch.tensor([1.5, 0.5, 1.0, 1.0])
    assert generalised_overlap(unit, unit) == pytest.approx(1)
    assert generalised_overlap(unit, half) == pytest.approx(0.5)
    assert generalised_overlap(unit, away) == pytest.approx(0)
    assert generalised_overlap(half, away) == pytest.approx(-0.25)


def some_things() -> Things:
    boxes = torch.tensor([[[0.2, 0.5, 0.2, 0.4], [0.7, 0.5, 0.2, 0.4]], [[0.5, 0.5, 0.6, 0.6], [0.0, 0.0, 0.0, 0.0]]])
    tokens = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 0, 0], [0, 0, 0]]])
    return Things(boxes, tokens, torch.tensor([[True, True], [True, False]]))


def test_each_thing_is_matched_once_and_by_the_best_answer() -> None:
    things = some_things()
    boxes = torch.full((2, 5, 4), 0.05)
    logits = torch.full((2, 5, 3), -8.0)
    for picture, answer, thing in ((0, 3, 0), (0, 1, 1), (1, 4, 0)):
        boxes[picture, answer] = things.boxes[picture, thing]
        logits[picture, answer] = things.tokens[picture, thing] * 16 - 8
    matched = match_once(costs(logits, boxes, things), things.there)
    assert sorted(zip(*(part.tolist() for part in matched), strict=True)) == [(0, 1, 1), (0, 3, 0), (1, 4, 0)]
    right = set_losses(logits, boxes, things, matched)
    assert float(right.total) < 1e-3
    assert float(set_losses(-logits, boxes, things, matched).classes) > 1
    assert float(set_losses(logits, boxes.roll(1, 1), things, matched).overlap) > 0.3


def test_proposals_stand_for_things_that_they_lie_in() -> None:
    things = some_things()
    x = (torch.arange(20) + 0.5) / 20
    places = torch.stack([x, torch.full_like(x, 0.5)], 1)
    cost = torch.rand(2, 20, 2, generator=torch.Generator().manual_seed(2))
    pictures, proposals, found = match_often(cost, things, places)
    box = things.boxes[pictures, found]
    assert ((x[proposals] - box[:, 0]).abs() < box[:, 2] / 2).all()
    assert things.there[pictures, found].all()
    assert len(set(zip(pictures.tolist(), proposals.tolist(), strict=True))) == len(pictures)
    assert (pictures == 1).sum() == 6  # the cheapest of the twelve that lie in it
    inside = cost[1, 4:16, 0]
    assert set(proposals[pictures == 1].tolist()) == set((inside.argsort()[:6] + 4).tolist())


def test_mask_loss_counts_small_things() -> None:
    masks = torch.zeros(1, 60, 80, dtype=torch.bool)
    masks[0, 10:13, 20:24] = True
    box = torch.tensor([[20.0, 10, 24, 13]])
    right = torch.where(masks, 12.0, -12.0)
    assert sum(map(float, mask_loss(right, masks, box))) < 2e-3
    focal, dice = mask_loss(torch.full_like(right, -12.0), masks, box)
    assert float(focal) > 0.5
    assert float(dice) > 0.5
    near = near_boxes(box, (60, 80))
    assert near[0, 8:15, 17:27].all()
    assert int(near.sum()) == 9 * 10


def test_pictures_agree_with_their_truth(pictures: Pictures) -> None:
    assert pictures.image.shape == (4, 192, 640, 3)
    for k in range(4):
        sky = pictures.thing[k] == np.flatnonzero(pictures.kind[k] == KINDS.index("sky"))[0]
        np.testing.assert_array_equal(np.isinf(pictures.depth[k]), sky)
        for number in np.flatnonzero(pictures.kind[k] >= 0):
            rows, columns = np.nonzero(pictures.thing[k] == number)
            assert pictures.area[k, number] == len(rows)
            assert pictures.box[k, number].tolist() == [
                columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            ]  # fmt: skip


def test_batches_are_drawn_from_the_step_alone_and_mirrored_whole(pictures: Pictures) -> None:
    batches = Batches(pictures, 6, 0, "cpu")
    batch, _ = batches.draw(3)
    again, _ = Batches(pictures, 6, 0, "cpu").draw(3)
    assert torch.equal(batch.image, again.image)
    assert not torch.equal(batch.image, batches.draw(4)[0].image)
    for k in range(6):
        for number in torch.nonzero(batch.area[k] > 0)[:, 0].tolist():
            columns = torch.nonzero((batch.thing[k] == number).any(0))[:, 0]
            assert batch.box[k, number, 0] == columns.min()
            assert batch.box[k, number, 2] == columns.max() + 1


def test_things_to_segment_are_large_enough(pictures: Pictures) -> None:
    batch, generator = Batches(pictures, 4, 0, "cpu").draw(0)
    owners, numbers = choose_things(batch, 5, generator)
    assert (batch.area[owners, numbers] >= 30).all()
    assert (owners.diff() >= 0).all()
    assert owners.bincount().max() <= 5
    assert len({(a, b) for a, b in zip(owners.tolist(), numbers.tolist(), strict=True)}) == len(owners)


def test_prompts_answer_to_every_name_of_a_kind() -> None:
    words = tokenizer()
    prompt = tokenise(("bus", "person", "traffic sign", "pedestrian"), words)
    named = [words.convert_ids_to_tokens(prompt.ids[0][row > 0].tolist()) for row in prompt.answers]
    assert named[KINDS.index("person")] == ["person", "pedestrian"]
    assert named[KINDS.index("sign")] == ["traffic", "sign"]
    assert named[KINDS.index("car")] == []
    drawn = {draw_phrases(torch.Generator().manual_seed(seed)) for seed in range(20)}
    assert len(drawn) > 5
    numbers = vocabulary()
    assert sorted(numbers.values()) == list(range(SIZE))
    assert all(word in numbers for group in PHRASES.values() for phrase in group for word in phrase.split())


def test_held_out_drives_are_of_other_worlds() -> None:
    train = training_shoots(8, 4)
    held_out = held_out_shoots("val", 2, 4) + held_out_shoots("test", 2, 4)
    assert not {shoot.config.seed for shoot in train} & {shoot.config.seed for shoot in held_out}
    assert {drives(shoot.config)[shoot.index][1] for shoot in train} == {"train"}
    assert {drives(shoot.config)[shoot.index][1] for shoot in held_out} == {"val", "test"}
    assert WorldConfig().seed not in {shoot.config.seed for shoot in train}  # type: ignore[call-arg]


def test_average_precision_by_hand() -> None:
    box = np.array([[0, 0, 10, 10]], np.float32)
    far = box + 100
    both = np.concatenate([box, far])
    must = np.array([True, True])
    assert average_precision([(both, np.array([0.9, 0.8]))], [(both, must)]) == 1
    assert average_precision([(both, np.array([0.9, 0.8]))], [(box, must[:1])]) == 1  # the wrong one comes second
    assert average_precision([(both[::-1], np.array([0.9, 0.8]))], [(box, must[:1])]) == 0.5
    assert average_precision([(box, np.array([0.9]))], [(both, must)]) == 0.5
    small = np.array([True, False])
    assert average_precision([(both, np.array([0.8, 0.9]))], [(both, small)]) == 1


def test_the_row_constants_are_the_best_ones(pictures: Pictures) -> None:
    rows = row_depths(pictures)

    def error(row: int, constant: float) -> float:
        depth = pictures.depth[:, row].astype(np.float32)
        return relative_error(np.full_like(depth, constant), depth)

    for row in (100, 150, 191):
        best = error(row, rows[row])
        assert all(best <= error(row, rows[row] * ratio) + 1e-6 for ratio in (0.8, 0.95, 1.05, 1.2))


def test_places_next_to_each_other_look_alike_to_sam() -> None:
    from vipocc.apps.embedded.architectures import build

    place = build("segmenter", 0).shared_image_embedding
    points = torch.tensor([[0.5, 0.5], [0.51, 0.5], [0.9, 0.1]])
    with torch.no_grad():
        encoded = torch.nn.functional.normalize(place(points), dim=1)
    assert float(encoded[0] @ encoded[1]) > 0.9
    assert float(encoded[0] @ encoded[2]) < 0.5
