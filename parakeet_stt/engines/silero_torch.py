"""The Silero speech detector as a torch module, for a GPU: all windows of all streams in one pass.

audio → magnitudes of its spectrum → convolutions → LSTM → probability. The weights are those of the TorchScript file
that the package silero-vad carries, which are also those of its ONNX files; its `silero_vad_16k.safetensors` holds the
weights of another release.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

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
FIRST = -1  # a stream's priority: before those of the others, 0
MAX_WINDOWS = 4096  # in one pass of the convolutions: two minutes of audio


class TorchDetector:
    """Silero on `device`; see `protocols.SpeechDetector`. Not thread-safe: the thread that owns the device calls it.

    Computes in float32, without TF32, on a stream of its own: it waits for no batch that was launched before.
    """

    def __init__(self, device: str) -> None:
        """Load the weights onto the device. Raises StartupError if the package silero-vad is not installed."""
        self._device = torch.device(device)
        self._network = SileroNetwork().to(self._device).eval()
        is_gpu = self._device.type == "cuda"
        self._stream = torch.cuda.Stream(self._device, FIRST) if is_gpu else None  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        """Probability of speech in each window of each of several streams; see `protocols.SpeechDetector`."""
        counts = [len(own) for own in windows]
        reached = np.array(states, np.float32)
        if not any(counts):
            return [np.zeros(0, np.float32) for _ in counts], reached
        order, (samples, places) = pack(counts), self._lay_out(windows)
        # cuDNN takes only contiguous states.
        given = np.ascontiguousarray(reached[order.streams].transpose(1, 0, 2)[:, None])
        with torch.cuda.stream(self._stream), without_tf32():
            rows = samples.to(self._device, non_blocking=True).as_strided(
                (len(samples) // WINDOW_SAMPLES - 1, CONTEXT_SAMPLES + WINDOW_SAMPLES),
                (WINDOW_SAMPLES, 1),
                WINDOW_SAMPLES - CONTEXT_SAMPLES,
            )
            wanted = places[order.rows]
            padding = -len(wanted) % size_of_parts(len(wanted))
            parts = torch.split(self._upload(np.pad(wanted, (0, padding))), MAX_WINDOWS)
            features = torch.cat([self._network.encode(rows[part]) for part in parts])[: len(wanted)]
            packed = PackedSequence(features, torch.from_numpy(order.batch_sizes))
            found, after = (one.cpu().numpy() for one in self._network.decode(packed, self._upload(given)))
        reached[order.streams] = after[:, 0].transpose(1, 0, 2)
        flat = np.empty(len(found), np.float32)
        flat[order.rows] = found
        return split_streams(flat, counts), reached

    def _lay_out(self, windows: Sequence[Windows]) -> tuple[torch.Tensor, npt.NDArray[np.int64]]:
        """The samples of all streams, once each, and the row in which each window's context is.

        A row has as many samples as a window has new ones. Each stream has a row more, which ends with its context.
        """
        given = [own for own in windows if len(own)]
        counts = [len(own) for own in given]
        samples = torch.empty((sum(counts) + len(given)) * WINDOW_SAMPLES, pin_memory=self._stream is not None)
        rows, first = samples.numpy().reshape(-1, WINDOW_SAMPLES), 0
        for own, count in zip(given, counts, strict=True):
            rows[first, -CONTEXT_SAMPLES:] = own[0, :CONTEXT_SAMPLES]
            rows[first + 1 : first + 1 + count] = own[:, CONTEXT_SAMPLES:]
            first += 1 + count
        return samples, np.arange(sum(counts)) + np.repeat(np.arange(len(given)), counts)

    def _upload(self, values: npt.NDArray[Any]) -> torch.Tensor:
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


def size_of_parts(count: int) -> int:
    """Windows in a pass, of which some pad it: cuDNN looks for a way at each new size, for longer than a pass takes."""
    return min(MAX_WINDOWS, 1 << (count - 1).bit_length())


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
