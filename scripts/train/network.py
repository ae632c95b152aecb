"""Describes a Parakeet-TDT network to NeMo, at any size, and trains its tokenizer.

Shared by train_tiny_model.py and scripts/bench/random_parakeet.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SAMPLE_RATE = 16_000
DURATIONS = (0, 1, 2, 3, 4)  # in frames, of a token
SIGMA = 0.02  # of the loss: logit under-normalization, as in tdt_loss.py


@dataclass(frozen=True)
class NetworkSize:
    """What differs between networks of the family.

    features: mel features. width, layers, heads, conv_channels: of the encoder. hidden: width of the prediction and the
    joint network. predictor_layers: of the prediction network. dropout: of the encoder; the other two have twice as
    much.
    """

    features: int
    width: int
    layers: int
    heads: int
    conv_channels: int
    hidden: int
    predictor_layers: int
    dropout: float


def make_config(size: NetworkSize, tokenizer: Path) -> dict[str, object]:
    """NeMo's configuration of the published architecture at this size. tokenizer: folder of `train_tokenizer`."""
    asr = "nemo.collections.asr.modules"
    loss = dict(fastemit_lambda=0.0, clamp=-1.0, durations=list(DURATIONS), sigma=SIGMA, omega=0.1)
    return dict(
        sample_rate=SAMPLE_RATE, compute_eval_loss=False, log_prediction=False, rnnt_reduction="mean_volume",
        skip_nan_grad=False,
        model_defaults=dict(enc_hidden=size.width, pred_hidden=size.hidden, joint_hidden=size.hidden,
                            tdt_durations=list(DURATIONS), num_tdt_durations=len(DURATIONS)),
        tokenizer=dict(dir=str(tokenizer.resolve()), type="bpe"),
        preprocessor=dict(_target_=f"{asr}.AudioToMelSpectrogramPreprocessor", sample_rate=SAMPLE_RATE,
                          normalize="per_feature", window_size=0.025, window_stride=0.01, window="hann",
                          features=size.features, n_fft=512, frame_splicing=1, dither=1e-5, pad_to=0),
        encoder=dict(_target_=f"{asr}.ConformerEncoder", feat_in=size.features, feat_out=-1, n_layers=size.layers,
                     d_model=size.width, use_bias=False, subsampling="dw_striding", subsampling_factor=8,
                     subsampling_conv_channels=size.conv_channels, causal_downsampling=False, ff_expansion_factor=4,
                     self_attention_model="rel_pos", n_heads=size.heads, att_context_size=[-1, -1], xscaling=False,
                     untie_biases=True, pos_emb_max_len=5000, conv_kernel_size=9, conv_norm_type="batch_norm",
                     dropout=size.dropout, dropout_pre_encoder=size.dropout, dropout_emb=0.0, dropout_att=size.dropout),
        decoder=dict(_target_=f"{asr}.RNNTDecoder", normalization_mode=None, random_state_sampling=False,
                     blank_as_pad=True, prednet=dict(pred_hidden=size.hidden, pred_rnn_layers=size.predictor_layers,
                                                     t_max=None, dropout=2 * size.dropout)),
        joint=dict(_target_=f"{asr}.RNNTJoint", log_softmax=None, preserve_memory=False, fuse_loss_wer=False,
                   fused_batch_size=16, num_extra_outputs=len(DURATIONS),
                   jointnet=dict(joint_hidden=size.hidden, activation="relu", dropout=2 * size.dropout)),
        decoding=dict(strategy="greedy_batch", model_type="tdt", durations=list(DURATIONS), greedy=dict(max_symbols=10),
                      beam=dict(beam_size=2, return_best_hypothesis=False, score_norm=True)),
        loss=dict(loss_name="tdt", tdt_kwargs=loss),
    )  # fmt: skip


def train_tokenizer(folder: Path, lines: Iterable[str], tokens: int) -> None:
    """Train a BPE tokenizer of so many tokens on these lines; its files go into `folder`."""
    import sentencepiece

    (folder / "text.txt").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "tokenizer"), vocab_size=tokens, model_type="bpe",
        character_coverage=1.0, bos_id=-1, eos_id=-1, minloglevel=2,
    )  # fmt: skip
    _remove_paths(folder / "tokenizer.model")
    pieces = [line.split("\t")[0] for line in (folder / "tokenizer.vocab").read_text().splitlines()]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")


def _remove_paths(model: Path) -> None:
    """Remove the names of this machine's folders from a tokenizer's model."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    proto.trainer_spec.ClearField("input")
    proto.trainer_spec.ClearField("model_prefix")
    model.write_bytes(proto.SerializeToString())
