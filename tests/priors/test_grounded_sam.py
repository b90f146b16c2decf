from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import transformers

from vipocc.errors import CheckpointError, ConfigError
from vipocc.priors.config import CLASSES, MAX_INSTANCES, InstanceClass, SamConfig
from vipocc.priors.grounded_sam.boxes import clip, from_centres, overlap, suppress
from vipocc.priors.grounded_sam.detector import GroundingDino, select
from vipocc.priors.grounded_sam.preprocessing import (
    detector_input,
    detector_size,
    masks_to_image,
    segmenter_input,
    segmenter_size,
)
from vipocc.priors.grounded_sam.prompt import Prompt, build_prompt, classify, prompt_text
from vipocc.priors.grounded_sam.provenance import instances_fingerprint
from vipocc.priors.grounded_sam.records import Detections, pack, paint
from vipocc.priors.grounded_sam.segmenter import Sam
from vipocc.priors.tiny import make_tiny_grounding_dino

ROAD = InstanceClass(label="road", phrases=("road",), sampling="uniform")
PEDESTRIAN = InstanceClass(label="pedestrian", phrases=("pedestrian", "person"), sampling="gaussian")
LIGHT = InstanceClass(label="light", phrases=("traffic light",), sampling="gaussian")
#: [CLS] road . pedestrian . person . traffic light . [SEP]
PROMPT = Prompt("", tuple(range(11)), ((1, 2), (3, 4), (5, 6), (7, 9)), (0, 1, 1, 2))


def config(tiny: dict[str, Path], **changes: object) -> SamConfig:
    paths = {"detector": str(tiny["detector"]), "segmenter": str(tiny["segmenter"])}
    return SamConfig(**{**paths, "shortest_side": 96, "longest_side": 320, **changes})  # type: ignore[arg-type]


def test_the_default_prompt_is_table_8_with_the_traffic_it_merges() -> None:
    text = prompt_text(CLASSES)
    assert text.startswith("road. building. vegetation. sky. car. pedestrian. person. rider.")
    assert text.endswith(".")
    kinds = {entry.label: entry.sampling for entry in CLASSES}
    assert [label for label, kind in kinds.items() if kind == "uniform"] == ["road", "building", "vegetation", "sky"]
    assert {"car", "pedestrian", "rider", "truck", "bus", "bicycle"} <= {k for k, v in kinds.items() if v == "gaussian"}
    merge = {phrase: entry.label for entry in CLASSES for phrase in entry.phrases}
    assert merge["person"] == "pedestrian"
    assert merge["caravan"] == "truck"


@pytest.mark.parametrize(
    "classes",
    [(), (ROAD, ROAD), (ROAD, InstanceClass(label="street", phrases=("road",), sampling="uniform"))],
)
def test_classes_must_be_distinct(classes: tuple[InstanceClass, ...]) -> None:
    with pytest.raises(ValueError, match=r"class is needed|stands twice"):
        SamConfig(classes=classes)


@pytest.mark.parametrize("phrase", ["", " car", "Car", "a. b"])
def test_phrases_must_be_promptable(phrase: str) -> None:
    with pytest.raises(ValueError, match="must be lower case"):
        InstanceClass(label="x", phrases=(phrase,), sampling="uniform")


def test_token_spans_cover_the_words_of_each_phrase(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = make_tiny_grounding_dino(tmp_path, words=["road", "pedestrian", "person", "traffic", "li", "##ght"])
    prompt = build_prompt((ROAD, PEDESTRIAN, LIGHT), AutoTokenizer.from_pretrained(folder))
    assert prompt.text == "road. pedestrian. person. traffic light."
    # [CLS] road . pedestrian . person . traffic li ##ght . [SEP]: BERT's numbers for the special ones.
    assert [prompt.input_ids[k] for k in (0, 2, 4, 6, 10, 11)] == [101, 1012, 1012, 1012, 1012, 102]
    assert prompt.spans == ((1, 2), (3, 4), (5, 6), (7, 10))
    assert prompt.classes == (0, 1, 1, 2)


def test_a_word_that_the_tokenizer_does_not_know_is_an_error(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_tiny_grounding_dino(tmp_path, words=["road"]))
    with pytest.raises(CheckpointError, match="does not know 'pedestrian'"):
        build_prompt((ROAD, PEDESTRIAN), tokenizer)
    with pytest.raises(ConfigError, match="4 tokens, the detector takes 3"):
        build_prompt((ROAD,), tokenizer, max_tokens=3)


def probabilities(*rows: dict[int, float]) -> np.ndarray:
    table = np.full((len(rows), 11), 0.01, np.float32)
    for row, values in zip(table, rows, strict=True):
        for token, value in values.items():
            row[token] = value
    return table


def test_classes_come_from_token_spans_not_from_phrases() -> None:
    scores, classes = classify(
        probabilities(
            {1: 0.6, 3: 0.7},  # road and pedestrian above the threshold: the phrase would read "road pedestrian"
            {5: 0.5},  # the second word of a merged class
            {7: 0.9, 8: 0.2, 1: 0.6},  # half of "traffic light" is weaker than all of "road"
            {7: 0.7, 8: 0.7, 1: 0.6},
            {0: 0.9, 2: 0.95, 9: 0.9},  # marks and ends of the prompt are no class
            {1: 0.2},  # below the text threshold
        ),
        PROMPT,
        0.25,
    )
    assert classes.tolist() == [1, 1, 0, 2, -1, -1]
    np.testing.assert_allclose(scores, [0.7, 0.5, 0.9, 0.7, 0.01, 0.2], rtol=1e-6)


def test_suppression_is_per_class_and_keeps_the_surest() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [40, 0, 50, 10], [0, 0, 10, 5]], np.float32)
    scores = np.array([0.5, 0.9, 0.8, 0.4, 0.95], np.float32)
    classes = np.array([0, 0, 1, 0, 0])
    assert suppress(boxes, scores, classes, 0.7).tolist() == [4, 1, 2, 3]
    assert suppress(boxes, scores, classes, 0.5).tolist() == [4, 2, 0, 3]
    assert suppress(boxes[:0], scores[:0], classes[:0], 0.7).tolist() == []


def test_suppression_agrees_with_torchvision() -> None:
    from torchvision.ops import batched_nms

    rng = np.random.default_rng(0)
    low = rng.uniform(0, 100, (300, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 60, (300, 2))], 1).astype(np.float32)
    scores, classes = rng.random(300).astype(np.float32), rng.integers(0, 4, 300)
    expected = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(classes), 0.4)
    assert suppress(boxes, scores, classes, 0.4).tolist() == expected.tolist()


def test_overlap_and_clipping() -> None:
    one, two = np.array([[0, 0, 4, 4]], np.float32), np.array([[2, 2, 6, 6], [9, 9, 9, 9]], np.float32)
    np.testing.assert_allclose(overlap(one, two), [[4 / 28, 0]])
    boxes = from_centres(np.array([[0.5, 0.5, 2.0, 0.5]]), 96, 320)
    np.testing.assert_allclose(boxes, [[-160, 24, 480, 72]])
    np.testing.assert_allclose(clip(boxes, 96, 320), [[0, 24, 320, 72]])


def test_selection_thresholds_clips_suppresses_and_caps() -> None:
    settings = SamConfig(classes=(ROAD, PEDESTRIAN, LIGHT))
    table = probabilities({1: 0.29}, {1: 0.31}, {1: 0.5}, {3: 0.8}, {3: 0.9}, {3: 0.95})
    centres = np.array(
        [[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.21, 0.2], [1.0, 0.5, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2],
         [1.5, 0.5, 0.2, 0.2]], np.float32,
    )  # fmt: skip
    found = select(table, centres, PROMPT, settings, 100, 200)
    # Below the threshold, a duplicate, and outside the image: three of the six go.
    assert found.labels.tolist() == [1, 1, 0]
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.5], rtol=1e-6)
    np.testing.assert_allclose(found.boxes, [[0, 0, 40, 20], [180, 40, 200, 60], [79, 40, 121, 60]], atol=1e-4)
    many = np.tile(np.float32([0, 0, 0.01, 0.01]), (900, 1))
    many[:, 0], many[:, 1] = np.arange(900) % 30 / 30 + 0.01, np.arange(900) // 30 / 30 + 0.01
    rows = probabilities(*({3: 0.4 + k / 2000} for k in range(900)))
    capped = select(rows, many, PROMPT, settings, 300, 300)
    assert len(capped) == MAX_INSTANCES == 254
    assert capped.scores.min() > 0.4 + (900 - 255) / 2000


def test_sizes_of_the_networks_inputs_are_the_published_ones() -> None:
    assert detector_size(192, 640) == (400, 1333)
    assert detector_size(480, 640) == (800, 1066)
    assert detector_size(640, 480) == (1066, 800)
    assert segmenter_size(192, 640) == (307, 1024)
    assert segmenter_size(96, 320) == (307, 1024)


def test_inputs_agree_with_transformers_image_processors(images: np.ndarray) -> None:
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    theirs = GroundingDinoImageProcessorPil()(list(images[:1]), return_tensors="pt")["pixel_values"]
    ours = detector_input(images[:1])
    assert ours.shape == theirs.shape == (1, 3, 400, 1333)
    assert (ours - theirs).abs().max() < 0.05
    theirs = SamImageProcessorPil()(list(images[:1]), return_tensors="pt")["pixel_values"]
    ours = segmenter_input(images[:1])
    assert ours.shape == theirs.shape == (1, 3, 1024, 1024)
    assert ours[:, :, 307:].abs().max() == 0
    assert (ours - theirs).abs().max() < 0.05


def test_masks_return_to_where_they_are_in_the_image() -> None:
    # A rectangle of the image, put into SAM's low-resolution square, comes back within a pixel or two of it.
    height, width = 96, 320
    logits = torch.full((1, 256, 256), -4.0)
    scale = 256 / 320
    logits[0, round(20 * scale) : round(60 * scale), round(100 * scale) : round(200 * scale)] = 4.0
    mask = masks_to_image(logits, height, width)[0].numpy()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    np.testing.assert_allclose([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1], [20, 60, 100, 200], atol=2)


def test_small_masks_are_painted_over_large_ones_and_areas_are_measured_before() -> None:
    masks = np.zeros((3, 6, 8), bool)
    masks[0, 2:4, 2:4] = True  # 4 pixels, inside both others
    masks[1] = True  # 48
    masks[2, 1:5, 1:6] = True  # 20
    painted = paint(masks, masks.reshape(3, -1).sum(1))
    assert (painted[2:4, 2:4] == 1).all()
    assert (painted == 3).sum() == 16
    assert (painted == 2).sum() == 28
    boxes = np.array([[2, 2, 4, 4], [0, 0, 8, 6], [1, 1, 6, 5]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([4, 0, 1], np.int16))
    none = Detections(boxes[:0], found.scores[:0], found.labels[:0])
    arrays = pack([found, none], [masks, masks[:0]], 6, 8)
    assert arrays["count"].tolist() == [3, 0]
    assert arrays["area"][0, :4].tolist() == [4, 48, 20, 0]
    assert arrays["label"][0, :4].tolist() == [4, 0, 1, -1]
    np.testing.assert_array_equal(arrays["masks"][0], painted)
    assert (arrays["label"][1] == -1).all()
    assert not arrays["masks"][1].any()


def test_equal_masks_show_the_surer_instance() -> None:
    masks = np.ones((2, 3, 3), bool)
    assert (paint(masks, np.array([9, 9])) == 1).all()


def test_254_instances_fit_the_map() -> None:
    masks = np.zeros((254, 16, 16), bool)
    masks.reshape(254, -1)[np.arange(254), np.arange(254)] = True
    assert paint(masks, np.ones(254, int)).max() == 254


def test_the_networks_find_and_segment_varied_instances(tiny: dict[str, Path], images: np.ndarray) -> None:
    settings = config(tiny)
    detections = GroundingDino(settings)(images)
    masks = Sam(settings)(images, detections)
    assert all(len(found) >= 3 for found in detections)
    assert len({int(label) for found in detections for label in found.labels}) >= 3
    for found, full in zip(detections, masks, strict=True):
        assert full.shape == (len(found), 96, 320)
        assert (np.diff(found.scores) <= 0).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [320, 96, 320, 96]).all()
        areas = full.reshape(len(full), -1).sum(1)
        assert len(set(areas.tolist())) > 2
    assert not np.array_equal(detections[0].boxes[:3], detections[1].boxes[:3])


def test_a_batch_gives_what_single_images_give(tiny: dict[str, Path], images: np.ndarray) -> None:
    whole, single = config(tiny, batch_size=3), config(tiny, batch_size=1, boxes_at_once=2)
    together, alone = GroundingDino(whole)(images), GroundingDino(single)(images)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
        assert one.labels.tolist() == other.labels.tolist()
    for one, other in zip(Sam(whole)(images, alone), Sam(single)(images, alone), strict=True):
        assert (one == other).mean() > 0.9999


@pytest.mark.skipif(transformers.__version__.startswith("5.17."), reason="by itself it places the words wrongly")
def test_boxes_are_clipped_logits_of_transformers_itself(tiny: dict[str, Path], images: np.ndarray) -> None:
    from transformers import AutoTokenizer, GroundingDinoForObjectDetection

    detector = GroundingDino(config(tiny))
    model = GroundingDinoForObjectDetection.from_pretrained(tiny["detector"]).eval()
    text = AutoTokenizer.from_pretrained(tiny["detector"])(detector.prompt.text, return_tensors="pt")
    with torch.no_grad():
        output = model(
            pixel_values=detector_input(images[:1], 96, 320),
            input_ids=text["input_ids"],
            attention_mask=text["attention_mask"],
            token_type_ids=text["token_type_ids"],
        )
    probabilities, boxes = detector.infer(images[:1])
    np.testing.assert_allclose(boxes, output.pred_boxes.numpy(), atol=1e-5)
    np.testing.assert_allclose(
        probabilities, output.logits.sigmoid().numpy()[..., : probabilities.shape[-1]], atol=1e-5
    )


def test_networks_run_in_true_float32_with_cudnn_whatever_the_process_has(
    tiny: dict[str, Path], images: np.ndarray
) -> None:
    """Asked for badly, torch's switch for TF32 also turns cuDNN off."""
    detector, segmenter = GroundingDino(config(tiny)), Sam(config(tiny))
    seen = []

    def look(*_: object) -> None:
        cudnn = torch.backends.cudnn
        seen.append((cudnn.enabled, cudnn.allow_tf32, torch.get_float32_matmul_precision()))

    model = segmenter.network.model  # type: ignore[attr-defined]
    for part in (detector.network, model.vision_encoder, model.mask_decoder):
        part.register_forward_hook(look)  # type: ignore[union-attr]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        segmenter(images, detector(images))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(seen) >= 3
    assert set(seen) == {(True, False, "highest")}


def test_no_detection_is_an_empty_record(tiny: dict[str, Path], images: np.ndarray) -> None:
    settings = config(tiny, box_threshold=1.0)
    detections = GroundingDino(settings)(images)
    masks = Sam(settings)(images, detections)
    assert [len(found) for found in detections] == [0, 0, 0]
    arrays = pack(detections, masks, 96, 320)
    assert arrays["count"].tolist() == [0, 0, 0]


def test_fingerprint_names_both_models_prompt_and_merge_table(tiny: dict[str, Path]) -> None:
    found = instances_fingerprint(config(tiny))
    assert found["detector"]["digest"] != found["segmenter"]["digest"]
    assert found["prompt"] == prompt_text(CLASSES)
    assert found["merge"]["person"] == "pedestrian"
    assert (found["box_threshold"], found["text_threshold"]) == (0.3, 0.25)


def test_a_detector_without_tokenizer_is_one_sentence(tmp_path: Path, tiny: dict[str, Path]) -> None:
    folder = shutil.copytree(tiny["detector"], tmp_path / "detector")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        GroundingDino(config(tiny, detector=str(folder)))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_swapped_pair_of_models_is_refused(tiny: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"type 'sam' where 'grounding-dino' is needed.*--detector"):
        instances_fingerprint(config(tiny, detector=str(tiny["segmenter"])))


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(tiny: dict[str, Path], images: np.ndarray) -> None:
    settings = config(tiny)
    slow, fast = GroundingDino(settings)(images), GroundingDino(settings, "cuda")(images)
    for one, other in zip(slow, fast, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
    for one, other in zip(Sam(settings)(images, slow), Sam(settings, "cuda")(images, slow), strict=True):
        assert (one == other).mean() > 0.9999


def test_pictures_are_not_all_alike(images: np.ndarray) -> None:
    assert cv2.absdiff(images[0], images[1]).mean() > 5
