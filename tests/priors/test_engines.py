"""The two engines give one answer, and the two checkpoint layouts hold one network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from vipocc.errors import CheckpointError, DeviceError
from vipocc.priors.arithmetic import arithmetic
from vipocc.priors.config import CLASSES, SamConfig
from vipocc.priors.grounded_sam.attention import fused_attention
from vipocc.priors.grounded_sam.conversion import folder_to_pth, pth_to_folder
from vipocc.priors.grounded_sam.detector import GroundingDino
from vipocc.priors.grounded_sam.engines import detector_weights, segmenter_weights
from vipocc.priors.grounded_sam.original_dino import OriginalDino
from vipocc.priors.grounded_sam.original_sam import OriginalSam
from vipocc.priors.grounded_sam.preprocessing import detector_input, segmenter_input
from vipocc.priors.grounded_sam.provenance import instances_fingerprint
from vipocc.priors.grounded_sam.random_weights import make_random_detector
from vipocc.priors.grounded_sam.records import Detections, pack
from vipocc.priors.grounded_sam.segmenter import Sam
from vipocc.priors.grounded_sam.transformers_dino import TransformersDino
from vipocc.priors.grounded_sam.transformers_sam import TransformersSam
from vipocc.priors.pth import load_pth
from vipocc.priors.tiny import make_tiny_grounding_dino, make_tiny_sam

Make = Callable[..., SamConfig]

HEADS = 2
"""Attention heads of the tiny SAM's encoder."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both tiny models as official files (`dino.pth`, `sam.pth`) and as folders converted from these."""
    folder = tmp_path_factory.mktemp("engines")
    source = make_tiny_grounding_dino(folder / "source-dino", width=256)
    vary_constants(source)
    # A box that reaches the border is where the two packages differ, so the boxes are pushed there.
    push_boxes_out(source)
    folder_to_pth(str(source), folder / "dino.pth")
    vary_constants(make_tiny_sam(folder / "source-sam"))
    folder_to_pth(str(folder / "source-sam"), folder / "sam.pth")
    pth_to_folder(folder / "dino.pth", folder / "dino", str(source))
    pth_to_folder(folder / "sam.pth", folder / "sam", "")
    names = {"words": source, "source_dino": source, "source_sam": folder / "source-sam"}
    return names | {name: folder / name for name in ("dino.pth", "sam.pth", "dino", "sam")}


@pytest.fixture(scope="module")
def made(models: dict[str, Path]) -> Make:
    def make(detector: str = "dino", segmenter: str = "sam", **changes: Any) -> SamConfig:
        paths = {"detector": str(models[detector]), "segmenter": str(models[segmenter])}
        sizes = {"shortest_side": 96, "longest_side": 320, "tokenizer": str(models["words"])}
        return SamConfig(**{**paths, **sizes, **changes})

    return make


def vary_constants(folder: Path) -> None:
    """Draw what a fresh network starts with all equal, so that a tensor in another's place shows.

    Those are biases, norms, tables of positions, and the weights (1e-4) of the fusion of words and image.
    """
    from safetensors.torch import load_file, save_file

    generator, state = torch.Generator().manual_seed(7), load_file(folder / "model.safetensors")
    for name, tensor in state.items():
        if (tensor == tensor.flatten()[0]).all():
            start = tensor if float(tensor.abs().max()) > 0.01 else torch.zeros_like(tensor)
            state[name] = start + 0.1 * torch.randn(tensor.shape, generator=generator)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def push_boxes_out(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    for name in state:
        if name.startswith("bbox_embed.") and name.endswith("layers.2.weight"):
            state[name] = state[name] * 10
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def both(made: Make, device: str = "cpu", **changes: Any) -> tuple[Any, Any]:
    ours, theirs = GroundingDino(made(**changes), device), GroundingDino(made("dino.pth", "sam.pth", **changes), device)
    assert isinstance(ours.network, TransformersDino)
    assert isinstance(theirs.network, OriginalDino)
    return ours, theirs


Answer = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Scores of all proposals [B, N, T] by token; logits [B, Q, T] and boxes [B, Q, 4] of those chosen."""


def answers(ours: Any, theirs: Any, pixels: torch.Tensor) -> tuple[Answer, Answer]:
    """Return what both engines say, both having chosen their queries by the scores of the first.

    The queries are the proposals with the highest scores, and each takes a trained vector by its rank. Where two scores
    differ by less than rounding does, the engines may rank them differently, and those two rows then differ as a whole.
    """
    given: list[torch.Tensor] = []
    scored: list[torch.Tensor] = []
    first = ours.network.model.model.encoder_output_class_embed
    second = theirs.network.model.transformer.enc_out_class_embed

    def swap(_: Any, __: Any, scores: torch.Tensor) -> torch.Tensor:
        scored.append(scores)
        return given[0]

    hooks = (
        first.register_forward_hook(lambda _, __, scores: given.append(scores)),
        second.register_forward_hook(swap),
    )
    try:
        with torch.inference_mode(), arithmetic(pixels.device, "float32"):
            found, expected = ours.network(pixels), theirs.network(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    tokens = found[0].shape[-1]
    return (given[0][..., :tokens], *found), (scored[0][..., :tokens], *expected)


def assert_same(found: Answer, expected: Answer) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_logits_and_boxes_of_both_engines_agree(made: Make, images: np.ndarray) -> None:
    ours, theirs = both(made)
    found, expected = answers(ours, theirs, detector_input(images, 96, 320))
    _, logits, boxes = found
    assert ours.prompt == theirs.prompt
    assert logits.shape == (3, 24, len(ours.prompt.input_ids))
    # The answer varies from image to image, from box to box and from word to word, and reaches the border.
    assert min(logits.std(axis).mean() for axis in (0, 1, 2)) > 0.2
    assert boxes.std(1).mean() > 0.05
    assert torch.minimum(boxes, 1 - boxes).min() < 0.0005
    assert_same(found, expected)


@pytest.mark.gpu
def test_logits_and_boxes_of_both_engines_agree_on_cuda(made: Make, images: np.ndarray) -> None:
    ours, theirs = both(made, "cuda")
    assert_same(*answers(ours, theirs, detector_input(images, 96, 320, "cuda")))


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def test_logits_and_boxes_agree_at_full_size(tmp_path: Path, device: str) -> None:
    """Swin-T as published, an image of 192x640 as it goes in, 900 queries of some eleven thousand proposals."""
    folder = make_random_detector(tmp_path / "dino")
    folder_to_pth(str(folder), tmp_path / "dino.pth")
    given = {"tokenizer": str(folder), "classes": CLASSES}
    ours = GroundingDino(SamConfig(detector=str(folder), **given), device)
    theirs = GroundingDino(SamConfig(detector=str(tmp_path / "dino.pth"), **given), device)
    blocks = np.random.default_rng(0).integers(0, 256, (1, 24, 80, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    found, expected = answers(ours, theirs, detector_input(blocks, device=device))
    scores, logits, boxes = found
    assert scores.shape[1] == 50 * 167 + 25 * 84 + 13 * 42 + 7 * 21
    assert logits.shape[1] == boxes.shape[1] == 900
    assert 0.5 < scores.std() < 5
    assert 0.5 < logits.std() < 5
    assert boxes.std(1).min() > 0.03
    assert_same(found, expected)


@pytest.mark.gpu
def test_fused_attention_is_attention_in_half_precision(made: Make, images: np.ndarray) -> None:
    sam, plain = Sam(made(dtype="bfloat16"), "cuda"), Sam(made(), "cuda")
    pixels = segmenter_input(images, 128, device="cuda")
    with torch.inference_mode():
        expected = plain.network.encode(pixels)
        with torch.autocast("cuda", torch.bfloat16):
            got = sam.network.encode(pixels)
    assert (got - expected).std() < 0.05 * expected.std()


def test_boxes_at_the_border_need_the_published_bound(
    made: Make, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vipocc.priors.grounded_sam.transformers_dino.refine_as_published", lambda model: None)
    (_, _, boxes), (_, _, their_boxes) = answers(*both(made), detector_input(images, 96, 320))
    assert (boxes - their_boxes).abs().max() > 5e-5  # with it, some 1e-6


def test_detections_masks_and_records_of_both_engines_agree(made: Make, images: np.ndarray) -> None:
    packed = []
    every_mask = []
    for names in (("dino", "sam"), ("dino.pth", "sam.pth")):
        config = made(*names)
        found = GroundingDino(config)(images)
        masks = Sam(config)(images, found)
        packed.append(pack(found, masks, 96, 320))
        every_mask.append(np.concatenate(masks))
    one, other = every_mask
    assert len(one) == len(other) >= 15
    shares = one.reshape(len(one), -1).mean(1)
    assert shares.min() > 0.005
    assert shares.max() < 0.95
    assert shares.std() > 0.05
    common, union = (one & other).reshape(len(one), -1).sum(1), (one | other).reshape(len(one), -1).sum(1)
    assert (common / union).min() >= 0.999
    for name in ("count", "label"):
        np.testing.assert_array_equal(packed[0][name], packed[1][name])
    for name, tolerance in (("score", 1e-4), ("box", 0.05), ("area", 3)):
        np.testing.assert_allclose(packed[0][name], packed[1][name], rtol=0, atol=tolerance)
    assert (packed[0]["masks"] == packed[1]["masks"]).mean() > 0.999


@pytest.mark.skipif(transformers.__version__.startswith("5.17."), reason="by itself it places the words wrongly")
def test_the_text_is_encoded_once_and_that_is_what_encoding_it_each_time_gives(made: Make, images: np.ndarray) -> None:
    from transformers import GroundingDinoForObjectDetection

    detector = GroundingDino(made())
    plain = GroundingDinoForObjectDetection.from_pretrained(detector.config.detector).eval()
    kept = detector.network.model.model.text_backbone.features  # type: ignore[attr-defined]
    seen = []
    plain.model.text_backbone.register_forward_hook(lambda _, __, output: seen.append(output.last_hidden_state))
    ids = torch.tensor([detector.prompt.input_ids]).expand(3, -1)
    with torch.inference_mode():
        plain(pixel_values=detector_input(images, 96, 320), input_ids=ids, attention_mask=torch.ones_like(ids))
    assert seen[0].shape[0] == 3
    torch.testing.assert_close(kept.expand(3, -1, -1), seen[0], rtol=0, atol=1e-5)
    assert not any("word_embeddings" in name for name, _ in detector.network.named_parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["road.", "road. building. car. person. traffic light. sky.", "a b c d. e f. g?  h."])
def test_phrases_see_themselves_as_in_the_original_package(models: dict[str, Path], text: str) -> None:
    from groundingdino.models.GroundingDINO import bertwarper

    from vipocc.priors.grounded_sam.phrases import DELIMITERS, phrase_blocks
    from vipocc.priors.grounded_sam.tokenizer import read_tokenizer

    tokenizer = read_tokenizer(models["words"])
    tokens = tokenizer([text, text], return_tensors="pt")
    special = tokenizer.convert_tokens_to_ids(list(DELIMITERS))
    masks, positions, _ = bertwarper.generate_masks_with_special_tokens_and_transfer_map(tokens, special, tokenizer)
    sees, ours = phrase_blocks(tokens["input_ids"], tokenizer)
    assert torch.equal(sees, masks)
    assert torch.equal(ours, positions)


def test_building_the_original_network_leaves_its_package_as_it_was(made: Make) -> None:
    from groundingdino.models.GroundingDINO import bertwarper, groundingdino
    from groundingdino.util import get_tokenlizer

    detector = GroundingDino(made("dino.pth"))
    assert groundingdino.BertModelWarper is bertwarper.BertModelWarper
    assert groundingdino.get_tokenlizer is get_tokenlizer
    assert detector.prompt.spans[0] == (1, 2)


def test_a_failure_while_building_leaves_the_package_as_it_was(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from groundingdino.models.GroundingDINO import bertwarper, groundingdino

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(groundingdino, "MLP", broken)
    with pytest.raises(RuntimeError, match="on purpose"):
        GroundingDino(made("dino.pth"))
    assert groundingdino.BertModelWarper is bertwarper.BertModelWarper


@pytest.mark.parametrize("name", ["dino", "sam"])
def test_both_conversions_keep_every_tensor(models: dict[str, Path], tmp_path: Path, name: str) -> None:
    from safetensors.torch import load_file

    first = load_file(models[f"source_{name}"] / "model.safetensors")
    there = load_file(models[name] / "model.safetensors")
    # The one tensor that transformers writes and no network reads.
    assert {each for each in set(first) - set(there) if "swin.layernorm" not in each} == set()
    assert all(torch.equal(tensor, first[each]) for each, tensor in there.items())
    folder_to_pth(str(models[name]), tmp_path / "back.pth")
    before, back = load_pth(models[f"{name}.pth"], "--x"), load_pth(tmp_path / "back.pth", "--x")
    assert set(before) == set(back)
    assert all(torch.equal(tensor, back[each]) for each, tensor in before.items())


@pytest.mark.parametrize("name", ["dino.pth", "sam.pth"])
@pytest.mark.parametrize("change", ["drop", "add", "rename"])
def test_missing_and_unknown_tensors_are_named(
    models: dict[str, Path], made: Make, tmp_path: Path, name: str, change: str
) -> None:
    state = load_pth(models[name], "--x")
    victim = next(each for each in state if each.endswith("norm2.bias"))
    tensor = state.pop(victim) if change != "add" else torch.zeros(1)
    if change != "drop":
        state["something.else"] = tensor
    torch.save(state, tmp_path / name)
    expected = "something.else" if change != "drop" else victim.replace(".", r"\.")
    with pytest.raises(CheckpointError, match=rf"(misses|unknown).*({expected}|{victim})"):
        loader = {"dino.pth": GroundingDino, "sam.pth": Sam}[name]
        config = made(**{"detector" if name == "dino.pth" else "segmenter": name})
        field = "detector" if name == "dino.pth" else "segmenter"
        loader(config.model_copy(update={field: str(tmp_path / name)}))
    with pytest.raises(CheckpointError):
        pth_to_folder(tmp_path / name, tmp_path / "folder", str(models["words"]))
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_tensors_that_only_official_files_have_are_ignored(models: dict[str, Path], made: Make, tmp_path: Path) -> None:
    state = load_pth(models["dino.pth"], "--x")
    state["label_enc.weight"] = torch.zeros(2001, 256)
    state["bert.embeddings.position_ids"] = torch.arange(256)[None]
    state["bert.pooler.dense.weight"], state["bert.pooler.dense.bias"] = torch.zeros(64, 64), torch.zeros(64)
    state["backbone.0.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.long)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "official.pth")
    pth_to_folder(tmp_path / "official.pth", tmp_path / "folder", str(models["words"]))
    GroundingDino(made().model_copy(update={"detector": str(tmp_path / "folder")}))
    GroundingDino(made().model_copy(update={"detector": str(tmp_path / "official.pth")}))


def test_the_engine_goes_by_the_weights_and_models_may_differ(made: Make) -> None:
    found = instances_fingerprint(made("dino.pth", "sam"))
    assert (found["detector"]["engine"], found["segmenter"]["engine"]) == ("original", "transformers")
    assert found["detector"]["model"] == "dino.pth"
    with pytest.raises(CheckpointError, match=r"'transformers' does not read original checkpoints.*convert"):
        instances_fingerprint(made("dino.pth", "sam", engine="transformers"))
    with pytest.raises(CheckpointError, match=r"'original' reads original checkpoints.*--segmenter"):
        instances_fingerprint(made("dino.pth", "sam", engine="original"))
    both_original = instances_fingerprint(made("dino.pth", "sam.pth", engine="original"))
    assert both_original["segmenter"]["engine"] == "original"


def test_swapped_files_are_refused(made: Make) -> None:
    with pytest.raises(CheckpointError, match=r"not a Grounding DINO.*--detector"):
        detector_weights(made("sam.pth"))
    with pytest.raises(CheckpointError, match=r"not a SAM.*--segmenter"):
        segmenter_weights(made("dino", "dino.pth"))


def test_a_tokenizer_is_found_beside_the_file_and_missed_in_one_sentence(
    models: dict[str, Path], made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copy(models["dino.pth"], tmp_path / "dino.pth")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = made().model_copy(update={"detector": str(tmp_path / "dino.pth"), "tokenizer": "nobody/nothing"})
    with pytest.raises(CheckpointError, match=r"nobody/nothing.*HF_HUB_OFFLINE is set.*--tokenizer") as caught:
        GroundingDino(config)
    assert "\n" not in str(caught.value)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(models["words"] / name, tmp_path / name)
    assert len(GroundingDino(config).prompt.spans) == 13


def test_native_encoding_reads_the_tables_of_the_square(made: Make, images: np.ndarray) -> None:
    """An image that fills the square is the same either way, whatever was encoded before; a wide one is cut."""
    square = np.ascontiguousarray(images[:, :, :96])
    for name in ("sam", "sam.pth"):
        sam = Sam(made("dino", name, encoding="native"))
        network = sam.network
        with torch.inference_mode():
            full = segmenter_input(square, sam.side, encoding="native", patch=network.patch)
            assert full.shape[2:] == (128, 128)
            before = network.encode(full)
            wide = segmenter_input(images, sam.side, encoding="native", patch=network.patch)
            assert wide.shape[2:] == (48, 128)
            cut = network.encode(wide)
            assert cut.shape[2:] == (3, 8)
            torch.testing.assert_close(network.encode(full), before, rtol=0, atol=0)


def attention_reference(attention: Any, hidden: torch.Tensor, rows: int) -> torch.Tensor:
    """SAM's attention over a square of patches [B, S, S, C] written out; nothing attends to those below `rows` rows."""
    side = hidden.shape[1]
    y, x = torch.arange(side * side) // side, torch.arange(side * side) % side
    qkv = attention.qkv(hidden).reshape(len(hidden), side * side, 3, HEADS, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    down = attention.rel_pos_h[y[:, None] - y + side - 1]
    across = attention.rel_pos_w[x[:, None] - x + side - 1]
    scores = query @ key.mT / query.shape[-1] ** 0.5 + torch.einsum("bnqc,qkc->bnqk", query, down + across)
    scores[..., rows * side :] = -torch.inf
    return attention.proj((scores.softmax(-1) @ value).transpose(1, 2).reshape(hidden.shape))


@pytest.mark.parametrize("name", ["sam", "sam.pth"])
def test_native_attention_is_that_of_the_square_without_the_padding(made: Make, name: str) -> None:
    """Over 3 of 8 rows of patches, by tables that were cut, against all 8 rows with the padding masked out."""
    square, native = Sam(made("dino", name)).network, Sam(made("dino", name, encoding="native")).network
    native.encode(torch.zeros(1, 3, 3 * 16, 8 * 16))
    hidden = torch.randn(2, 8, 8, 24, generator=torch.Generator().manual_seed(0))
    expected = attention_reference(whole_image_attention(square), hidden, rows=3)[:, :3]
    found = whole_image_attention(native)(hidden[:, :3])
    found = found[0] if isinstance(found, tuple) else found
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    padded = attention_reference(whole_image_attention(square), hidden, rows=8)[:, :3]
    assert (padded - expected).abs().max() > 0.01  # the padding matters


def whole_image_attention(network: Any) -> Any:
    """The attention of the tiny SAM's second layer, the one that looks at the whole image, of either engine."""
    if isinstance(network, TransformersSam):
        return network.model.vision_encoder.layers[1].attn
    return network.model.image_encoder.blocks[1].attn


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("size", [(4, 4), (8, 8)])
def test_fused_attention_is_attention(made: Make, layer: int, size: tuple[int, int]) -> None:
    attention = Sam(made()).network.model.vision_encoder.layers[layer].attn  # type: ignore[attr-defined]
    hidden = torch.randn(3, *size, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for table in (attention.rel_pos_h, attention.rel_pos_w):
            table.normal_(generator=torch.Generator().manual_seed(2))
        expected = attention(hidden)[0]
        got = fused_attention(attention, hidden)
        for table in (attention.rel_pos_h, attention.rel_pos_w):
            table.zero_()
        assert (attention(hidden)[0] - expected).abs().max() > 0.01  # the positions matter
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_the_effect_of_native_encoding_is_measured_and_alike_in_both_engines(made: Make, images: np.ndarray) -> None:
    boxes = np.array([[20, 20, 90, 80], [150, 30, 300, 90], [5, 5, 315, 90]], np.float32)
    found = [Detections(boxes, np.ones(3, np.float32), np.zeros(3, np.int16))] * 3
    masks = {
        (name, encoding): np.concatenate(Sam(made("dino", name, encoding=encoding))(images, found))
        for name in ("sam", "sam.pth")
        for encoding in ("square", "native")
    }

    def overlap(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.mean((one & other).sum((1, 2)) / (one | other).sum((1, 2))))

    for encoding in ("square", "native"):
        assert overlap(masks["sam", encoding], masks["sam.pth", encoding]) >= 0.999
    # Random weights attend to the padding as much as to the image: here the effect is as large as it can be.
    assert 0.3 < overlap(masks["sam", "square"], masks["sam", "native"]) < 0.99


@pytest.mark.parametrize("name", ["sam", "sam.pth"])
@pytest.mark.parametrize("encoding", ["square", "native"])
def test_a_compiled_encoder_gives_the_same_masks(
    made: Make, images: np.ndarray, monkeypatch: pytest.MonkeyPatch, name: str, encoding: str
) -> None:
    """Traced, as the command refuses to on the CPU; batches are filled up, so that one size is compiled for."""
    engine = {"sam": TransformersSam, "sam.pth": OriginalSam}[name]
    config = made("dino", name, batch_size=2, encoding=encoding)
    found = [Detections(np.array([[20, 20, 90, 80]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int16))] * 3
    plain = Sam(config)(images, found)
    monkeypatch.setattr("vipocc.priors.grounded_sam.segmenter.check_compiled", lambda compiled, device: None)
    monkeypatch.setattr(engine, "compile_encoder", partialmethod(engine.compile_encoder, backend="aot_eager"))
    sam = Sam(config.model_copy(update={"compiled": True}))
    sizes = []
    encode = sam.network.encode

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(sam.network, "encode", counted)
    masks = sam(images, found)
    assert sizes == [2, 2]
    for one, other in zip(masks, plain, strict=True):
        assert 0.02 < one.mean() < 0.98
        assert (one & other).sum() / (one | other).sum() >= 0.999
    layers = sam.network.model.vision_encoder.layers if name == "sam" else sam.network.model.image_encoder.blocks  # type: ignore[attr-defined]
    assert all(layer._compiled_call_impl is not None for layer in layers)


def test_fused_attention_can_be_compiled_whole(made: Make) -> None:
    attention = Sam(made()).network.model.vision_encoder.layers[1].attn  # type: ignore[attr-defined]
    hidden = torch.randn(2, 8, 8, 24, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        compiled = torch.compile(fused_attention, fullgraph=True, dynamic=False, backend="aot_eager")
        torch.testing.assert_close(compiled(attention, hidden), fused_attention(attention, hidden))


@pytest.mark.gpu
def test_bfloat16_runs_in_both_detectors_and_is_close_on_cuda(made: Make, images: np.ndarray) -> None:
    pixels = detector_input(images, 96, 320, "cuda")
    ours, theirs = both(made, "cuda", dtype="bfloat16")
    exact, _ = answers(*both(made, "cuda"), pixels)
    for detector, head in (
        (ours, ours.network.model.model.encoder_output_class_embed),
        (theirs, theirs.network.model.transformer.enc_out_class_embed),
    ):
        seen: list[torch.Tensor] = []
        hook = head.register_forward_hook(lambda _, __, scores, seen=seen: seen.append(scores.float()))
        probabilities, boxes = detector.infer(images)
        hook.remove()
        assert np.isfinite(probabilities).all()
        assert np.isfinite(boxes).all()
        scores = seen[0][..., : exact[0].shape[-1]]
        assert 0 < (scores - exact[0]).std() < 0.1 * exact[0].std()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sam", "sam.pth"])
def test_a_compiled_encoder_is_close_on_cuda(made: Make, images: np.ndarray, name: str) -> None:
    found = [Detections(np.array([[20, 20, 90, 80]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int16))] * 3
    plain, compiled = (
        np.stack(Sam(made("dino", name, batch_size=2, compiled=choice), "cuda")(images, found))
        for choice in (False, True)
    )
    assert (plain & compiled).sum() / (plain | compiled).sum() >= 0.999


def test_compiling_needs_cuda(made: Make) -> None:
    with pytest.raises(DeviceError, match="compiling needs a CUDA device"):
        Sam(made(compiled=True))


@pytest.mark.slow
@pytest.mark.parametrize("config", ["GroundingDINO_SwinT_OGC.py", "GroundingDINO_SwinB_cfg.py"])
def test_sizes_read_off_the_weights_are_those_of_the_packages_configurations(config: str) -> None:
    import importlib.util

    from vipocc.priors.grounded_sam.dino_layout import DinoSizes, dino_sizes
    from vipocc.priors.grounded_sam.original_dino import _as_it_warns, build_dino

    spec = importlib.util.find_spec("groundingdino.config")
    assert spec is not None
    assert spec.origin is not None
    values: dict[str, Any] = {}
    exec((Path(spec.origin).parent / config).read_text(), values)
    with _as_it_warns():
        from groundingdino.models.GroundingDINO.backbone.swin_transformer import build_swin_transformer

        swin = build_swin_transformer(values["backbone"], int(values["backbone"].split("_")[-2]))
    table = swin.layers[0].blocks[0].attn.relative_position_bias_table
    sizes = DinoSizes(
        embed_dim=swin.embed_dim,
        depths=tuple(len(layer.blocks) for layer in swin.layers),
        swin_heads=tuple(layer.blocks[0].attn.num_heads for layer in swin.layers),
        window=swin.layers[0].window_size,
        width=values["hidden_dim"],
        encoder_layers=values["enc_layers"],
        decoder_layers=values["dec_layers"],
        heads=values["nheads"],
        feed_forward=values["dim_feedforward"],
        levels=values["num_feature_levels"],
        queries=values["num_queries"],
        vocabulary=300,
        text_width=768,
        text_layers=1,
        text_feed_forward=3072,
        text_positions=512,
    )
    assert table.shape[0] == (2 * sizes.window - 1) ** 2
    assert sizes.trained_at == int(values["backbone"].split("_")[-2])

    class Tokenizer:
        def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
            return list(range(len(tokens)))

    assert dino_sizes(build_dino(sizes, Tokenizer()).state_dict()) == sizes


def test_sizes_of_the_published_sams_are_those_of_the_packages_registry() -> None:
    from segment_anything import sam_model_registry

    from vipocc.priors.grounded_sam.original_sam import build_sam
    from vipocc.priors.grounded_sam.sam_layout import sam_sizes

    for name, expected in (("vit_b", (12, 12)), ("vit_l", (24, 16)), ("vit_h", (32, 16))):
        with torch.device("meta"):
            theirs = sam_model_registry[name]()
            state = theirs.state_dict()
            sizes = sam_sizes(state)
            ours = build_sam(sizes)
        assert (sizes.layers, sizes.heads, sizes.side, sizes.window) == (*expected, 1024, 14)
        assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
        own = {k: (type(m).__name__, m.extra_repr()) for k, m in ours.named_modules() if k}
        assert own == {k: (type(m).__name__, m.extra_repr()) for k, m in theirs.named_modules() if k}
        heads = [block.attn.num_heads for block in theirs.image_encoder.blocks]
        assert [block.attn.num_heads for block in ours.image_encoder.blocks] == heads
        windows = [block.window_size for block in theirs.image_encoder.blocks]
        assert [block.window_size for block in ours.image_encoder.blocks] == windows
