"""Silero's network as a graph of matrix products, which ONNX Runtime computes in less than half the time.

audio → magnitudes of its spectrum → convolutions → LSTM → probability, with the packaged weights. A window has four
frames, so each convolution over them is one dense product; ONNX Runtime's convolutions over so few take three times as
long (docs/decisions/0002-detector-first.md).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from parakeet_stt.vad import CONTEXT_SAMPLES, WINDOW_SAMPLES

HOP_SAMPLES = 128  # of the spectrum: 8 ms; its filters are two of them long
REFLECTED_SAMPLES = 64  # appended to each window, so that it has four frames
FRAMES = 4
STRIDES = (1, 2, 2, 1)  # of the convolutions; each has filters of width 3
FEATURES = 128  # of the LSTM
OPSET, IR_VERSION = 18, 9  # what ONNX Runtime 1.22 reads
Array = npt.NDArray[np.float32]


def make_graph(path: Path) -> bytes:
    """A model for ONNX Runtime. path: `silero_vad_16k_sequence.onnx` of the package silero-vad.

    Inputs: `input`, windows with their context, float32, shape (steps × streams, samples), the first window of each
    stream first; `shape`, int64: steps, streams, FEATURES; `h` and `c`, the LSTM's states, shape (1, streams,
    FEATURES). Outputs: `speech_probs`, one for each row of `input`; `hn`, `cn`.
    """
    plain = onnx.load(path).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in plain.initializer}
    recurrent = next(node for node in plain.node if node.op_type == "LSTM").input[1:4]
    basis = weights["stft.forward_basis_buffer"][:, 0]  # real parts, then imaginary ones
    constants: dict[str, npt.NDArray[np.float32 | np.int64]] = {
        "pads": np.array([0, 0, 0, REFLECTED_SAMPLES]),
        "blocks_shape": np.array([-1, FRAMES + 1, HOP_SAMPLES]),
        "0": np.array([0]),
        "1": np.array([1]),
        "frames": np.array([FRAMES]),
        "blocks": np.array([FRAMES + 1]),
        "basis": basis.T,
        "flat": np.array([-1, FRAMES * len(basis) // 2]),
        "rows": np.array([-1, FEATURES]),
        "output_weight": weights["output.weight"][0],
        "output_bias": weights["output.bias"],
        "all": np.array([-1]),
        **{name: weights[name] for name in recurrent},
    }
    node = helper.make_node
    nodes = [
        node("Pad", ["input", "pads"], ["padded"], mode="reflect"),
        node("Reshape", ["padded", "blocks_shape"], ["hops"]),
        node("Slice", ["hops", "0", "frames", "1"], ["first_halves"]),
        node("Slice", ["hops", "1", "blocks", "1"], ["second_halves"]),
        node("Concat", ["first_halves", "second_halves"], ["overlapping"], axis=2),
        node("MatMul", ["overlapping", "basis"], ["spectrum"]),
        node("Mul", ["spectrum", "spectrum"], ["squares"]),
        node("Split", ["squares"], ["real", "imaginary"], axis=2, num_outputs=2),
        node("Add", ["real", "imaginary"], ["power"]),
        node("Sqrt", ["power"], ["magnitudes"]),
        node("Reshape", ["magnitudes", "flat"], ["layer_0"]),
    ]
    frames = FRAMES
    for number, stride in enumerate(STRIDES):
        weight, bias = weights[f"encoder.{number}.weight"], weights[f"encoder.{number}.bias"]
        dense = make_dense(weight, frames, stride)
        frames = (frames - 1) // stride + 1
        constants |= {f"weight_{number}": dense, f"bias_{number}": np.tile(bias, frames)}
        nodes += [
            node("Gemm", [f"layer_{number}", f"weight_{number}", f"bias_{number}"], [f"sums_{number}"]),
            node("Relu", [f"sums_{number}"], [f"layer_{number + 1}"]),
        ]
    nodes += [
        node("Reshape", [f"layer_{len(STRIDES)}", "shape"], ["steps"]),
        node("LSTM", ["steps", *recurrent, "", "h", "c"], ["outputs", "hn", "cn"], hidden_size=FEATURES),
        node("Reshape", ["outputs", "rows"], ["output_rows"]),
        node("Relu", ["output_rows"], ["positive"]),
        node("Gemm", ["positive", "output_weight", "output_bias"], ["logits"]),
        node("Sigmoid", ["logits"], ["probabilities"]),
        node("Reshape", ["probabilities", "all"], ["speech_probs"]),
    ]
    value = helper.make_tensor_value_info
    states: list[str | int | None] = [1, "streams", FEATURES]
    graph = helper.make_graph(
        nodes,
        "silero",
        [
            value("input", TensorProto.FLOAT, ["rows", CONTEXT_SAMPLES + WINDOW_SAMPLES]),
            value("shape", TensorProto.INT64, [3]),
            value("h", TensorProto.FLOAT, states),
            value("c", TensorProto.FLOAT, states),
        ],
        [
            value("speech_probs", TensorProto.FLOAT, ["rows"]),
            value("hn", TensorProto.FLOAT, states),
            value("cn", TensorProto.FLOAT, states),
        ],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    found: bytes = model.SerializeToString()
    return found


def make_dense(weight: Array, frames: int, stride: int) -> Array:
    """The matrix of a convolution over so few frames, with one of zeros on each side.

    weight: shape (outputs, inputs, width). Returns shape (frames × inputs, new frames × outputs).
    """
    outputs, inputs, width = weight.shape
    places = (frames - 1) // stride + 1
    found = np.zeros((frames, inputs, places, outputs), np.float32)
    for place in range(places):
        for tap in range(width):
            frame = place * stride + tap - 1
            if 0 <= frame < frames:
                found[frame, :, place] = weight[:, :, tap].T
    return found.reshape(frames * inputs, places * outputs)
