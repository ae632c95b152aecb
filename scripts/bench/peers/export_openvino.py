"""Quantizes the export's encoder for OpenVINO: needs `export.py`'s folder and the packages of `others.py`.

    PYTHONPATH=build/peers/site python -m scripts.bench.peers.export_openvino [--onnx build/onnx] [--peers build/peers]

`openvino-int8.xml` has the weights of linear layers in 8 bits; their inputs are quantized as they come, with scales of
their own. `openvino-static.xml` has convolutions in 8 bits too, and all inputs are quantized with scales that nncf
finds on a few clips: faster, but what other sound loses by them is not measured. It takes up to 18 minutes and 8 GB.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx_asr
import openvino

from scripts.bench.engine import cut_clips
from scripts.bench.peers.export import FOLDER
from scripts.bench.peers.others import PEERS

CLIPS = 4  # that the scales are found on


def main() -> None:
    """Quantize in both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, default=FOLDER, help="folder of the export")
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder of what others.py needs")
    arguments = parser.parse_args()
    encoder = openvino.Core().read_model(arguments.onnx / "encoder-model.onnx")
    compressed = nncf.compress_weights(encoder.clone(), mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(compressed, arguments.peers / "openvino-int8.xml", compress_to_fp16=False)
    asr: Any = onnx_asr.load_model("nemo-conformer-tdt", arguments.onnx, quantization="int8").asr
    samples = np.stack([clip.samples for clip in cut_clips(CLIPS)])
    features, lengths = asr._preprocessor(samples, np.full(CLIPS, samples.shape[1], np.int64))
    inputs = [{"audio_signal": features[[i]], "length": lengths[[i]]} for i in range(CLIPS)]
    quantized = nncf.quantize(encoder, nncf.Dataset(inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=CLIPS)
    openvino.save_model(quantized, arguments.peers / "openvino-static.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
