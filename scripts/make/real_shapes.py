"""Makes archives in the shape of NVIDIA's published ones, with random weights: what loads here loads there.

    python -m scripts.make.real_shapes parakeet-tdt-0.6b-v3 --out build/v3-random.nemo [--small]

The configuration, the kinds and the number of pieces, the class, and how the tensors are saved are those of the
published archives; the sizes too, unless --small. The pieces' spellings are our own: v3's has <unk>, 263 signs such as
<|en|>, and letters of all its languages but ё, Ё and ς. The script downloads nothing.
"""

from __future__ import annotations

import argparse
import io
import itertools
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from parakeet_stt.engines.catalogue import CATALOGUE
from scripts.train.network import NetworkSize, make_config, train_tokenizer

SEED = 20261126
LETTERS = {
    "latin": "abcdefghijklmnopqrstuvwxyzàáâãäåæçèéêëìíîïðñòóôõöøùúûüýāăąćċčďđēęěėġģħīįıķļłľĺńņňőœŕřśşšșťțūůűųźżžß",
    "cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюяєіїґ",
    "greek": "αβγδεζηθικλμνξοπρστυφχψωάέήίόύώϊϋΐΰ",
}
OTHERS = "0123456789.,?!-'%€$/"
SIGNS = (
    "nospeech", "pad", "endoftext", "startoftranscript", "pnc", "nopnc", "startofcontext", "itn", "noitn", "timestamp",
    "notimestamp", "diarize", "nodiarize", "spkchange", "audioseparator", "emo:undefined", "emo:neutral", "emo:happy",
    "emo:sad", "emo:angry", *CATALOGUE["nvidia/parakeet-tdt-0.6b-v3"].languages,
    *(f"spk{number}" for number in range(16)), *(f"spltoken{number}" for number in range(300)),
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """An archive. tokens, signs: number of pieces, and of signs among them. scripts: of `LETTERS`.

    is_hybrid: whether it has a CTC head beside.
    """

    size: NetworkSize
    tokens: int
    signs: int = 0
    scripts: tuple[str, ...] = ("latin",)
    is_hybrid: bool = False

    @property
    def small(self) -> Shape:
        """The same with a network that decodes a second of audio in milliseconds."""
        size = self.size
        return replace(
            self, size=replace(size, width=64, layers=2, heads=4, conv_channels=16, hidden=64, dropout=size.dropout)
        )


_XL = NetworkSize(
    features=128, width=1024, layers=24, heads=8, conv_channels=256, hidden=640, predictor_layers=2, dropout=0.1
)
SHAPES = {
    "parakeet-tdt-0.6b-v2": Shape(_XL, 1024),
    "parakeet-tdt-0.6b-v3": Shape(_XL, 8192, 263, ("latin", "cyrillic", "greek")),
    "parakeet-tdt_ctc-110m": Shape(
        replace(_XL, features=80, width=512, layers=17, predictor_layers=1), 1024, is_hybrid=True
    ),
    "parakeet-tdt-1.1b": Shape(replace(_XL, features=80, layers=42), 1024),
}


def make_pieces(shape: Shape) -> list[str]:
    """`<unk>`, signs, letters, and as many combinations of letters as make up the number of pieces."""
    signs = ["<pad>" if name == "pad" else f"<|{name}|>" for name in SIGNS[: shape.signs]]
    letters = [LETTERS[script] for script in shape.scripts]
    english = letters[0][:26] if len(letters) == 1 else None
    alphabets = [english] if english else letters
    singles = [*(c for own in alphabets for c in _cased(own)), *OTHERS]
    pairs = itertools.chain.from_iterable(zip(*map(_combine, alphabets), strict=False))
    found = ["<unk>", *signs, "▁", *singles]
    return [*found, *itertools.islice(pairs, shape.tokens - len(found))]


def _cased(letters: str) -> list[str]:
    return list(dict.fromkeys(c for letter in letters for c in (letter, letter.upper()) if len(c) == 1))


def _combine(letters: str) -> Iterator[str]:
    for first in _cased(letters):
        yield f"▁{first}"
    for length in (2, 3):
        yield from map("".join, itertools.product(letters, repeat=length))


def write_tokenizer(folder: Path, shape: Shape) -> None:
    """A BPE tokenizer of SentencePiece with these pieces, as NeMo names its files; signs are user-defined pieces."""
    from sentencepiece import sentencepiece_model_pb2

    train_tokenizer(folder, ["any text gives the rules by which letters are normalized"], 24)
    proto = sentencepiece_model_pb2.ModelProto.FromString((folder / "tokenizer.model").read_bytes())
    del proto.pieces[:]
    pieces = make_pieces(shape)
    proto.trainer_spec.vocab_size = len(pieces)
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
    for rank, piece in enumerate(pieces):
        kind = kinds.UNKNOWN if not rank else kinds.USER_DEFINED if piece.startswith("<") else kinds.NORMAL
        proto.pieces.add(piece=piece, score=float(-rank), type=kind)
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    (folder / "tokenizer.vocab").write_text("".join(f"{piece}\t{-rank}\n" for rank, piece in enumerate(pieces)))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")


def make_model(shape: Shape, tokenizer: Path) -> Any:
    """The network, with random weights. tokenizer: folder of `write_tokenizer`."""
    import nemo.collections.asr as nemo_asr
    from nemo.utils import logging as nemo_logging
    from omegaconf import OmegaConf

    nemo_logging.setLevel(nemo_logging.ERROR)
    config = make_config(shape.size, tokenizer)
    torch.manual_seed(SEED)
    if not shape.is_hybrid:
        return nemo_asr.models.EncDecRNNTBPEModel(cfg=OmegaConf.create(config)).eval()
    config["aux_ctc"] = dict(
        ctc_loss_weight=0.3, use_cer=False, ctc_reduction="mean_batch",
        decoder=dict(_target_="nemo.collections.asr.modules.ConvASRDecoder", feat_in=shape.size.width, num_classes=-1,
                     vocabulary=[]),
        decoding=dict(strategy="greedy"),
    )  # fmt: skip
    return nemo_asr.models.EncDecHybridRNNTCTCBPEModel(cfg=OmegaConf.create(config)).eval()


def save(model: Any, out: Path) -> None:
    """Write the archive as the published ones were: `resave` says how that differs from NeMo's own saving here."""
    model.save_to(str(out))
    resave(out, out)


def resave(source: Path, out: Path) -> None:
    """Copy an archive, its weights as a GPU saves them with an older torch.

    The tensors name cuda:0 as their place, those of an LSTM share one storage, as cuDNN wants them, and the checkpoint
    has no record `.format_version`.
    """
    with tarfile.open(source) as archive:
        members = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        contents = {name: content.read() for name, content in members.items() if content is not None}
    with tarfile.open(out, "w") as archive:
        for name, data in contents.items():
            written = _as_gpu_saves(data) if name.endswith(".ckpt") else data
            member = tarfile.TarInfo(name)
            member.size = len(written)
            archive.addfile(member, io.BytesIO(written))


def _as_gpu_saves(checkpoint: bytes) -> bytes:
    state = torch.load(io.BytesIO(checkpoint), weights_only=True)
    recurrent = [name for name in state if ".dec_rnn.lstm." in name]
    flat = torch.cat([state[name].flatten() for name in recurrent])
    start = 0
    for name in recurrent:
        count = state[name].numel()
        state[name] = flat[start : start + count].view(state[name].shape)
        start += count
    saved = io.BytesIO()
    with mock.patch("torch.serialization.location_tag", return_value="cuda:0"):
        torch.save(state, saved)
    plain = io.BytesIO()
    with zipfile.ZipFile(saved) as found, zipfile.ZipFile(plain, "w", zipfile.ZIP_STORED) as kept:
        for info in found.infolist():
            if not info.filename.endswith("/.format_version"):
                kept.writestr(info, found.read(info))
    return plain.getvalue()


def build(shape: Shape, out: Path) -> None:
    """Make the archive of a shape."""
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), shape)
        save(make_model(shape, Path(folder)), out)


def main() -> None:
    """Make the archive that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SHAPES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="with a small network")
    given = parser.parse_args()
    shape = SHAPES[given.name]
    build(shape.small if given.small else shape, given.out)
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.0f} MB, random weights")


if __name__ == "__main__":
    main()
