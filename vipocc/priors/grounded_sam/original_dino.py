"""Grounding DINO through groundingdino-py, from an official `.pth`.

The package wraps BERT in a copy of an old forward pass that newer transformers no longer allow. While the network is
built, three names in one of the package's modules stand for ours: that wrapper, and the two functions that would fetch
the tokenizer and BERT's weights by themselves (BERT's weights are in the checkpoint).
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam.dino_layout import UNUSED, DinoSizes, bert_config, dino_sizes
from vipocc.priors.grounded_sam.networks import DETECTOR, FixedText
from vipocc.priors.grounded_sam.prompt import Prompt, build_prompt
from vipocc.priors.grounded_sam.renaming import check_names
from vipocc.priors.grounded_sam.tokenizer import find_tokenizer, read_tokenizer
from vipocc.priors.pth import load_pth
from vipocc.priors.weights import Weights

_building = threading.Lock()


class OriginalDino(nn.Module):
    """See `networks.DetectorNetwork`."""

    prompt: Prompt

    def __init__(self, config: SamConfig, weights: Weights) -> None:
        """Build the network for the sizes of the weights, tokenise the prompt and encode it.

        Raises:
            CheckpointError: weights that are not all of a Grounding DINO's, no tokenizer, or one that does not know a
                phrase.
        """
        super().__init__()
        state = load_pth(weights.folder, DETECTOR)
        tokenizer = read_tokenizer(find_tokenizer(config.tokenizer, weights.folder))
        self.prompt = build_prompt(config.classes, tokenizer)
        self.model = build_dino(dino_sizes(state), tokenizer)
        own, given = set(self.model.state_dict()), set(state)
        optional = re.compile(UNUSED)
        check_names(
            [name for name in own - given if not optional.fullmatch(name)],
            [name for name in given - own if not optional.fullmatch(name)],
            weights.folder,
        )
        self.model.load_state_dict({name: state[name] for name in own & given}, strict=False)
        self.model.float().eval().requires_grad_(False)
        self._encode_text_once()

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `networks.DetectorNetwork`."""
        from groundingdino.util.misc import NestedTensor

        batch, _, height, width = pixels.shape
        nothing_padded = torch.zeros(batch, height, width, dtype=torch.bool, device=pixels.device)
        with _as_it_warns():
            output = self.model(NestedTensor(pixels, nothing_padded), captions=[self.prompt.text] * batch)
        return output["pred_logits"][..., : len(self.prompt.input_ids)], output["pred_boxes"]

    @torch.no_grad()
    def _encode_text_once(self) -> None:
        from groundingdino.models.GroundingDINO import bertwarper

        tokens = self.model.tokenizer([self.prompt.text], return_tensors="pt")
        masks, positions, _ = bertwarper.generate_masks_with_special_tokens_and_transfer_map(
            tokens, self.model.specical_tokens, self.model.tokenizer
        )
        output = self.model.bert(
            input_ids=tokens["input_ids"],
            token_type_ids=tokens["token_type_ids"],
            attention_mask=masks,
            position_ids=positions,
        )
        self.model.bert = FixedText(output["last_hidden_state"])


class TextEncoder(nn.Module):
    """BERT as the package's network calls it: with a mask for every pair of tokens, and positions."""

    def __init__(self, bert_model: Any) -> None:
        super().__init__()
        self.config = bert_model.config
        # These three names are those of the checkpoint's tensors; the model itself stays out of the module tree.
        self.embeddings, self.encoder, self.pooler = bert_model.embeddings, bert_model.encoder, bert_model.pooler
        self._whole = (bert_model,)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> Any:
        """Return BERT's output for tokens [B, T] whose pairs [B, T, T] see each other where the mask is true."""
        return self._whole[0](
            input_ids=input_ids,
            attention_mask=attention_mask[:, None],
            token_type_ids=token_type_ids,
            position_ids=position_ids,
        )


def build_dino(sizes: DinoSizes, tokenizer: Any) -> Any:
    """Return the package's Grounding DINO of these sizes, with random weights.

    What the sizes leave open is the same in the package's two configuration files: sine positions of temperature 20,
    four sampled points, two stages, text enhancer, fusion and text cross-attention, no gradient checkpoints.
    """
    with _as_it_warns():
        return _built(sizes, tokenizer)


def _built(sizes: DinoSizes, tokenizer: Any) -> Any:
    modules = _package()
    values = SimpleNamespace(
        hidden_dim=sizes.width, dropout=0.0, nheads=sizes.heads, num_queries=sizes.queries,
        dim_feedforward=sizes.feed_forward, enc_layers=sizes.encoder_layers, dec_layers=sizes.decoder_layers,
        pre_norm=False, query_dim=4, transformer_activation="relu", num_patterns=0, num_feature_levels=sizes.levels,
        enc_n_points=4, dec_n_points=4, two_stage_type="standard", embed_init_tgt=True, use_text_enhancer=True,
        use_fusion_layer=True, use_checkpoint=False, use_transformer_ckpt=False, use_text_cross_attention=True,
        text_dropout=0.0, fusion_dropout=0.0, fusion_droppath=0.1, position_embedding="sine", pe_temperatureH=20,
        pe_temperatureW=20,
    )  # fmt: skip
    swin = modules.swin(
        pretrain_img_size=sizes.trained_at,
        embed_dim=sizes.embed_dim,
        depths=list(sizes.depths),
        num_heads=list(sizes.swin_heads),
        window_size=sizes.window,
        out_indices=(1, 2, 3),
    )
    backbone = modules.joiner(swin, modules.positions(values))
    backbone.num_channels = swin.num_features[1:]
    with _our_text_encoder(modules.network, tokenizer, sizes):
        return modules.network.GroundingDINO(
            backbone,
            modules.transformer(values),
            num_queries=sizes.queries,
            aux_loss=True,
            iter_update=True,
            query_dim=4,
            num_feature_levels=sizes.levels,
            nheads=sizes.heads,
            two_stage_type="standard",
            dec_pred_bbox_embed_share=True,
            two_stage_bbox_embed_share=False,
            two_stage_class_embed_share=False,
            dn_number=0,
        )


@contextmanager
def _our_text_encoder(network: Any, tokenizer: Any, sizes: DinoSizes) -> Iterator[None]:
    from transformers import BertModel

    ours = {
        "BertModelWarper": TextEncoder,
        "get_tokenlizer": SimpleNamespace(
            get_tokenlizer=lambda _: tokenizer,
            get_pretrained_language_model=lambda _: BertModel(bert_config(sizes)),
        ),
    }
    with _building:
        before = {name: getattr(network, name) for name in ours}
        try:
            for name, value in ours.items():
                setattr(network, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(network, name, value)


@contextmanager
def _as_it_warns() -> Iterator[None]:
    """Silence the three warnings that importing, building and running the package give: it uses old names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.cuda\.amp\.autocast", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Importing from timm.models.layers", category=FutureWarning)
        warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release", category=UserWarning)
        yield


def _package() -> SimpleNamespace:
    """Import what is used of the package."""
    from groundingdino.models.GroundingDINO import groundingdino as network
    from groundingdino.models.GroundingDINO.backbone.backbone import Joiner
    from groundingdino.models.GroundingDINO.backbone.position_encoding import build_position_encoding
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer
    from groundingdino.models.GroundingDINO.transformer import build_transformer

    return SimpleNamespace(
        network=network,
        joiner=Joiner,
        positions=build_position_encoding,
        swin=SwinTransformer,
        transformer=build_transformer,
    )
