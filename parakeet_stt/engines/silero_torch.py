"""The Silero speech detector as a torch module, for a GPU: all windows of all streams in one pass.

audio → magnitudes of its spectrum → convolutions → LSTM → probability. The weights are those of the TorchScript file
that the package silero-vad carries, which are also those of its ONNX files; its `silero_vad_16k.safetensors` holds the
weights of another release.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from parakeet_stt.engines.silero_graph import FEATURES, HOP_SAMPLES, REFLECTED_SAMPLES, STRIDES
from parakeet_stt.engines.silero_onnx import silero_file
from parakeet_stt.protocols import DetectorStates
from parakeet_stt.vad import CONTEXT_SAMPLES, WINDOW_SAMPLES, Probabilities, Windows, split_streams

FILTER_SAMPLES = 2 * HOP_SAMPLES
BINS = FILTER_SAMPLES // 2 + 1
CHANNELS = (128, 64, 64, FEATURES)  # after each convolution; the four frames become one
LAYERS = tuple(zip(CHANNELS, STRIDES, strict=True))
MAX_WINDOWS = 16_384  # in one pass of the convolutions, for 150 MB of memory: nine minutes of audio


class TorchDetector:
    """Silero on `device`; see `protocols.SpeechDetector`. Not thread-safe: the thread that owns the device calls it.

    Computes in float32, without TF32.
    """

    def __init__(self, device: str) -> None:
        """Load the weights onto the device. Raises StartupError if the package silero-vad is not installed."""
        self._device = torch.device(device)
        self._network = SileroNetwork().to(self._device).eval()

    @torch.inference_mode()
    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        """Probability of speech in each window of each of several streams; see `protocols.SpeechDetector`."""
        counts = [len(own) for own in windows]
        reached = np.array(states, np.float32)
        if not any(counts):
            return [np.zeros(0, np.float32) for _ in counts], reached
        rows, order = np.concatenate(windows), pack(counts)
        # cuDNN takes only contiguous states.
        before = self._upload(np.ascontiguousarray(reached[order.streams].transpose(1, 0, 2)[:, None]))
        parts = (order.rows[start : start + MAX_WINDOWS] for start in range(0, len(rows), MAX_WINDOWS))
        with without_tf32():
            features = torch.cat([self._network.encode(self._upload(rows[part])) for part in parts])
            packed = PackedSequence(features, torch.from_numpy(order.batch_sizes))
            probabilities, after = self._network.decode(packed, before)
        reached[order.streams] = after.cpu().numpy()[:, 0].transpose(1, 0, 2)
        flat = np.empty(len(rows), np.float32)
        flat[order.rows] = probabilities.cpu().numpy()
        return split_streams(flat, counts), reached

    def _upload(self, values: npt.NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)


class SileroNetwork(nn.Module):
    """The network for 16 kHz, with its weights. Layers have the sizes that the TorchScript file shows."""

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Conv1d(1, 2 * BINS, FILTER_SAMPLES, stride=HOP_SAMPLES, bias=False)
        before, layers = BINS, list[nn.Module]()
        for channels, stride in LAYERS:
            layers += [nn.Conv1d(before, channels, 3, stride=stride, padding=1), nn.ReLU()]
            before = channels
        self.encoder = nn.Sequential(*layers)
        self.recurrent = nn.LSTM(FEATURES, FEATURES)
        self.output = nn.Linear(FEATURES, 1)
        self.load_state_dict(read_weights())

    def encode(self, windows: torch.Tensor) -> torch.Tensor:
        """Features of each window on its own. windows: (count, 64 + 512). Returns shape (count, features)."""
        assert windows.shape[1] == CONTEXT_SAMPLES + WINDOW_SAMPLES
        extended = nn.functional.pad(windows, (0, REFLECTED_SAMPLES), "reflect")
        real, imaginary = self.stft(extended[:, None]).split(BINS, 1)
        encoded: torch.Tensor = self.encoder((real.square() + imaginary.square()).sqrt())
        return encoded.squeeze(2)

    def decode(self, features: PackedSequence, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Probability of each window, in the order of `features`, and the states after each stream's last window.

        states: (2, 1, streams, features), hidden and cell, of the streams in the order of `features`.
        """
        hidden, cell = states
        outputs, reached = self.recurrent(features, (hidden, cell))
        return self.output(outputs.data.relu()).sigmoid().squeeze(1), torch.stack(reached)


class PackedOrder(NamedTuple):
    """How windows of several streams are ordered for the LSTM: the first of each stream, then the second, and so on.

    rows: for each place the number of the window, counted through all streams. batch_sizes: for each step the streams
    that still have a window. streams: those that have windows, by falling number of them.
    """

    rows: npt.NDArray[np.int64]
    batch_sizes: npt.NDArray[np.int64]
    streams: npt.NDArray[np.int64]


def pack(counts: Sequence[int]) -> PackedOrder:
    """The order of a `PackedSequence`. counts: windows of each stream, at least one of them not 0."""
    given = np.array(counts, np.int64)
    streams = np.argsort(-given, kind="stable")
    rank = np.empty_like(streams)
    rank[streams] = np.arange(len(streams))
    step = np.arange(given.sum()) - np.repeat(np.cumsum(given) - given, given)
    rows = np.lexsort((np.repeat(rank, given), step))
    return PackedOrder(rows, np.bincount(step), streams[: np.count_nonzero(given)])


def read_weights() -> dict[str, torch.Tensor]:
    """The weights for 16 kHz, with the names of `SileroNetwork`."""
    script = torch.jit.load(silero_file("silero_vad.jit"), map_location="cpu")  # type: ignore[no-untyped-call]
    found = script.state_dict()
    names = {"stft.weight": "stft.forward_basis_buffer"}
    for kind in ("weight", "bias"):
        names |= {f"encoder.{2 * layer}.{kind}": f"encoder.{layer}.reparam_conv.{kind}" for layer in range(len(LAYERS))}
        names |= {f"recurrent.{kind}_{of}_l0": f"decoder.rnn.{kind}_{of}" for of in ("ih", "hh")}
        names[f"output.{kind}"] = f"decoder.decoder.2.{kind}"
    weights = {own: found[f"_model.{name}"] for own, name in names.items()}
    weights["output.weight"] = weights["output.weight"].squeeze(2)  # a convolution of one sample there
    return weights


@contextmanager
def without_tf32() -> Iterator[None]:
    """Make cuDNN compute float32 as float32, for the whole process, while the context lasts.

    By default torch lets cuDNN round the inputs of convolutions and LSTMs to the ten bits of TF32.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
