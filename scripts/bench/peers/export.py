"""Exports a model for onnx-asr, in float32 and in int8 as published exports are: dynamic, linear layers only.

python -m scripts.bench.peers.export [--model build/parakeet-0.6b-random.nemo] [--out build/onnx]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.bench.engine import export_onnx
from scripts.bench.random_parakeet import OUT
from scripts.bench.serving import ROOT

FOLDER = ROOT / "build" / "onnx"
PARTS = ("encoder-model", "decoder_joint-model")


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
    export_onnx(arguments.model, folder)
    quantize(folder)
    for file in sorted(folder.glob("*.onnx")):
        print(f"{file}: {file.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
