"""Describes a Sortformer diarizer to NeMo, at any size, and builds it with random weights.

Shared by train.py and scripts/bench/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SAMPLE_RATE = 16_000
SPEAKERS = 4
MEAN, DEVIATION = -11.0, 4.0  # of log-mel features of speech: the first convolution takes them off


@dataclass(frozen=True)
class DiarizerSize:
    """What differs between networks of the family. mels: features. width, layers, heads, conv_channels: of the encoder.

    inner: of the transformer's feed-forward layers. dropout: everywhere.
    """

    mels: int
    width: int
    layers: int
    heads: int
    conv_channels: int
    transformer_width: int
    transformer_layers: int
    transformer_heads: int
    inner: int
    dropout: float


TINY = DiarizerSize(80, 80, 5, 4, 32, 64, 2, 4, 128, 0.05)
# Source: the published configuration of nvidia/diar_streaming_sortformer_4spk-v2.
PUBLISHED = DiarizerSize(128, 512, 17, 8, 256, 192, 18, 8, 768, 0.1)


def make_config(size: DiarizerSize) -> dict[str, object]:
    """NeMo's configuration of the published architecture at this size."""
    asr = "nemo.collections.asr"
    return dict(
        sample_rate=SAMPLE_RATE, pil_weight=0.5, ats_weight=0.5, max_num_of_spks=SPEAKERS, streaming_mode=True, lr=1e-3,
        model_defaults=dict(fc_d_model=size.width, tf_d_model=size.transformer_width),
        optim=dict(name="adamw", lr=1e-3),
        preprocessor=dict(_target_=f"{asr}.modules.AudioToMelSpectrogramPreprocessor", normalize="NA",
                          window_size=0.025, sample_rate=SAMPLE_RATE, window_stride=0.01, window="hann",
                          features=size.mels, n_fft=512, frame_splicing=1, dither=1e-5, pad_to=0),
        sortformer_modules=dict(_target_=f"{asr}.modules.sortformer_modules.SortformerModules", num_spks=SPEAKERS,
                                dropout_rate=size.dropout, fc_d_model=size.width, tf_d_model=size.transformer_width,
                                spkcache_len=188, fifo_len=124, chunk_len=124, spkcache_update_period=124,
                                chunk_left_context=1, chunk_right_context=1),
        encoder=dict(_target_=f"{asr}.modules.ConformerEncoder", feat_in=size.mels, n_layers=size.layers,
                     d_model=size.width, n_heads=size.heads, dropout_emb=0.0, subsampling="dw_striding",
                     subsampling_factor=8, subsampling_conv_channels=size.conv_channels, conv_kernel_size=9,
                     dropout=size.dropout, dropout_pre_encoder=size.dropout, dropout_att=size.dropout),
        transformer_encoder=dict(_target_=f"{asr}.modules.transformer.transformer_encoders.TransformerEncoder",
                                 num_layers=size.transformer_layers, hidden_size=size.transformer_width,
                                 inner_size=size.inner, num_attention_heads=size.transformer_heads,
                                 attn_score_dropout=size.dropout, attn_layer_dropout=size.dropout,
                                 ffn_dropout=size.dropout, hidden_act="relu", pre_ln=False),
        loss=dict(_target_=f"{asr}.losses.bce_loss.BCELoss", weight=None, reduction="mean"),
    )  # fmt: skip


def build(size: DiarizerSize) -> Any:
    """NeMo's model with random weights. Its constructor seeds Python's `random`."""
    import torch
    from nemo.collections.asr.models import SortformerEncLabelModel
    from nemo.utils import logging as nemo_logging
    from omegaconf import OmegaConf

    nemo_logging.setLevel(nemo_logging.ERROR)
    model = SortformerEncLabelModel(OmegaConf.create(make_config(size)))
    first = next(module for module in model.encoder.pre_encode.modules() if isinstance(module, torch.nn.Conv2d))
    assert first.bias is not None
    with torch.no_grad():  # "normalize: NA" leaves the features as they are
        first.weight /= DEVIATION
        first.bias -= MEAN * first.weight.sum((1, 2, 3))
    return model
