"""Writes the model that runtimes are compared on, and its export for onnx-asr.

    python -m scripts.bench.peers.export [--model build/parakeet-0.6b-random.nemo] [--out build/onnx]

The export is in float32 and in int8 as published ones are: dynamic, linear layers only. Each step of the search gives
a token and goes on by FRAMES frames, whatever the sound: random weights find as many tokens as the last digits have it,
so that one precision would search more than the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from parakeet_stt.engines import nemo_archive
from scripts.bench.engine import export_onnx
from scripts.bench.random_parakeet import OUT
from scripts.bench.serving import ROOT

FOLDER = ROOT / "build" / "onnx"
MODEL = "model.nemo"  # in that folder
PARTS = ("encoder-model", "decoder_joint-model")
FRAMES = 3  # of 80 ms: 4.2 tokens a second, about as many as speech has
FIXED = 1e4  # logits; no other comes near


def fix_steps(model: Path, out: Path) -> None:
    """Write the model again, with a search that takes the same steps for any sound."""
    network = nemo_archive.restore(model)
    bias, blank = network.joint.joint_net[-1].bias, len(network.joint.vocabulary)
    with torch.no_grad():
        bias[blank] -= FIXED
        bias[blank + 1 + network.cfg.model_defaults.tdt_durations.index(FRAMES)] += FIXED
    network.save_to(str(out))


def quantize(folder: Path) -> None:
    """Write each part in int8 beside the one in float32, as `*.int8.onnx`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    for part in PARTS:
        quantize_dynamic(
            folder / f"{part}.onnx",
            folder / f"{part}.int8.onnx",
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
        )


def main() -> None:
    """Export and quantize."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=OUT, help="the .nemo file")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the export")
    arguments = parser.parse_args()
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    fix_steps(arguments.model, folder / MODEL)
    export_onnx(folder / MODEL, folder)
    quantize(folder)
    for file in sorted(folder.glob("*.onnx")):
        print(f"{file}: {file.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
