"""Samples → encoder output: the mel front end, the network, and the shapes that the network is given.

NeMo's front end checks the lengths on the device and so makes the host wait for all that is queued there; the
normalization here does not. The number of encoder frames is computed on the host, where the lengths are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.engines import devices
from parakeet_stt.engines.gpu.layers import FRAMES, fused_attention
from parakeet_stt.engines.steps.graphs import Tensors, capture, kept_memory
from parakeet_stt.protocols import FRAME_SAMPLES

EncoderMode = Literal["graphs", "eager"]

# A batch of at most so many padded seconds takes less time to compute than to launch (1,000 kernels in 27 ms of the
# host's time, docs/gpu.md), so it is replayed as one CUDA graph, of which there is one for each bucket. Larger batches
# are padded less, to one of under 400 sizes: CUDA's libraries take longer for a size that they see for the first time.
GRAPH_SECONDS = 256
LENGTHS = (32, 64, 80, 128, 208, 304, 400)  # encoder frames, of 0.08 s; live speech has up to 80
ITEMS = (1, 2, 4, 8, 16, 32, 64)
FRAMES_ON_GPU = 2 * FRAMES  # of which every batch has a multiple, and of so many items if it has more:
ITEMS_ON_GPU = 8
# Of shorter audio a CPU adds up the products in another order: an utterance's text would depend on whether a longer one
# shares its batch.
SHORTEST_ON_CPU = 16 * FRAME_SAMPLES
STD_FLOOR = 1e-5  # NeMo's, added to the standard deviation


def bucket_shapes(max_items: int, max_seconds: float) -> list[tuple[int, int]]:
    """Items and samples of every bucket that a batch of at most so many items and of such utterances may fall into."""
    lengths = [frames * FRAME_SAMPLES for frames in LENGTHS]
    longest = next((length for length in lengths if length >= max_seconds * SAMPLE_RATE), lengths[-1])
    most = next((items for items in ITEMS if items >= max_items), ITEMS[-1])
    return [
        (items, length)
        for length in lengths
        for items in ITEMS
        if items <= most and length <= longest and items * length <= GRAPH_SECONDS * SAMPLE_RATE
    ]


def padded_shape(items: int, samples: int) -> tuple[int, int]:
    """Items and samples that a GPU is given for a batch without a graph."""
    power = 1 << (items - 1).bit_length()
    return min(power, _round_up(items, ITEMS_ON_GPU)), _round_up(samples, FRAMES_ON_GPU * FRAME_SAMPLES)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


class Encoder:
    """The front end and the encoder of a model on its device."""

    def __init__(self, model: Any, device: torch.device, *, mode: EncoderMode = "graphs") -> None:
        """model: NeMo's, prepared and on the device; its front end is changed to one that does not wait.

        mode: graphs: on a GPU small batches replay a CUDA graph, once `capture` has been called.
        """
        self._model = model
        self._shortest = SHORTEST_ON_CPU if device.type == "cpu" else 0
        self._pads = device.type == "cuda"
        self._mode = mode if device.type == "cuda" else "eager"
        self._dtype = next(model.encoder.parameters()).dtype
        self._search_dtype = next(model.joint.parameters()).dtype
        self._featurizer = model.preprocessor.featurizer
        # TF32 rounds the factors of a float32 product to 10 bits of mantissa. Only the encoder uses it: the mel front
        # end takes the logarithm of its products, and the search is bound by latency.
        self._uses_tf32 = device.type == "cuda" and self._dtype == torch.float32
        self._attention = fused_attention if device.type == "cuda" else nullcontext
        if self._featurizer.normalize == "per_feature":
            model.preprocessor.featurizer = _Features(self._featurizer).eval()
        self._network: Callable[[torch.Tensor, torch.Tensor], Tensors] = model.encoder.forward_internal
        self._graphs: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor, Callable[[], Tensors]]] = {}

    def capture(self, max_items: int, max_seconds: float) -> None:
        """Capture a CUDA graph for every bucket that batches of at most so many items, so long each, may fall into.

        All share their memory and their input, since one batch is computed after the other.
        """
        if self._mode == "eager":
            return
        device = next(self._model.encoder.parameters()).device
        shapes = bucket_shapes(max_items, max_seconds)
        sizes = {shape: (shape[0], self._featurizer.nfilt, self._longest(shape[1])) for shape in shapes}
        with kept_memory(device) as self._memory:
            shared = torch.zeros(max(map(math.prod, sizes.values())), dtype=self._dtype, device=device)
            for shape in sorted(shapes, key=lambda shape: -math.prod(sizes[shape])):  # the largest leaves room for all
                features = shared[: math.prod(sizes[shape])].view(sizes[shape])
                lengths = torch.full((shape[0],), features.shape[2], device=device)
                self._graphs[shape] = features, lengths, capture(partial(self._encode, features, lengths))

    def shape(self, lengths: Sequence[int]) -> tuple[int, int]:
        """Items and samples of the padded batch that `__call__` wants. lengths: in samples."""
        own = len(lengths), max(self._shortest, *lengths)
        fitting = [shape for shape in self._graphs if shape[0] >= own[0] and shape[1] >= own[1]]
        default = padded_shape(*own) if self._pads else own
        return min(fitting, key=lambda shape: shape[0] * shape[1], default=default)

    def _feature_frames(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The number of the front end's frames, of which NeMo's array has one more."""
        front = self._featurizer
        padding = 2 * (front.n_fft // 2 if front.stft_pad_amount is None else front.stft_pad_amount)
        return np.where(samples > 0, (samples + padding - front.n_fft) // front.hop_length, 0)

    def frames(self, lengths: Sequence[int]) -> npt.NDArray[np.int64]:
        """The number of encoder frames of each utterance. lengths: in samples."""
        layer = self._model.encoder.pre_encode
        frames = self._feature_frames(np.array(lengths))
        round_frames = np.ceil if layer._ceil_mode else np.floor
        for _ in range(layer._sampling_num):  # NeMo's `calc_length`, which wants tensors
            padded = frames + layer._left_padding + layer._right_padding - layer._kernel_size
            frames = round_frames(padded / layer._stride + 1)
        return frames.astype(np.int64)

    def __call__(self, audio: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder output, shape (items, frames, features), of the search's type, and each item's number of frames.

        audio: float32, shape (items, samples). lengths: of each item in samples, int64, shape (items,); 0 for what
        pads the batch, which has no frames.
        """
        known = lengths > 0
        lengths = torch.where(known, lengths, audio.shape[1])  # of zeros; an empty one would divide by zero
        features, feature_lengths = self._model.preprocessor(input_signal=audio, length=lengths)
        features = features[:, :, : self._longest(audio.shape[1])]  # a single item's are all known: nothing is masked
        graph = self._graphs.get((len(audio), audio.shape[1]))
        encode = self._encode if graph is None else partial(_replay, *graph)
        encoded, frames = encode(features, feature_lengths)
        return encoded, torch.where(known, frames, 0)

    def _longest(self, samples: int) -> int:
        """The front end's frames of so many samples, at least one."""
        return max(1, int(self._feature_frames(np.array(samples))))

    def _encode(self, features: torch.Tensor, lengths: torch.Tensor) -> Tensors:
        self._model.encoder.update_max_seq_length(seq_length=features.shape[2], device=features.device)
        with devices.tf32(enabled=self._uses_tf32), self._attention():
            encoded, frames = self._network(features.to(self._dtype), lengths)
        return encoded.transpose(1, 2).to(self._search_dtype), frames


def _replay(
    its_features: torch.Tensor,
    its_lengths: torch.Tensor,
    replay: Callable[[], Tensors],
    features: torch.Tensor,
    lengths: torch.Tensor,
) -> Tensors:
    """What a graph gives for these. The outputs are copies, since the next replay overwrites its own."""
    its_features.copy_(features)
    its_lengths.copy_(lengths)
    return tuple(output.clone() for output in replay())


class _Features(nn.Module):
    """NeMo's front end with the normalization of `normalize` in place of its own."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self._plain = plain
        plain.normalize = None

    def forward(self, samples: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if samples.device.type != "cpu":
            features, frames = self._plain(samples, lengths)
            return normalize(features, frames), frames
        # One by one: a CPU adds up in an order that depends on the length, and so would the text on the longest item.
        frames = self._plain.get_seq_len(lengths)
        longest = int(self._plain.get_seq_len(torch.tensor(samples.shape[1])))
        features = samples.new_zeros(len(samples), self._plain.nfilt, longest)
        for item, sound, length, count in zip(features, samples, lengths, frames.tolist(), strict=True):
            if count > 0:
                own, _ = self._plain(sound[None, :length], length[None])
                item[:, :count] = normalize(own[:, :, :count], torch.tensor([count]))[0]
        return features, frames


def normalize(features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean 0 and deviation 1 of each feature over each item's frames, and 0 beyond them.

    features: shape (batch, features, frames), 0 beyond each item's length. lengths: in frames.
    The same arithmetic as NeMo's `normalize_batch`, which also reads `torch.any(lengths == 1)` on the host.
    """
    known = (torch.arange(features.shape[2], device=features.device) < lengths[:, None])[:, None]
    count = lengths[:, None].clamp(min=1)
    mean = features.sum(2) / count
    centred = torch.where(known, features - mean[:, :, None], 0.0)
    deviation = torch.sqrt(torch.sum(centred**2, 2) / (lengths[:, None] - 1.0))
    deviation = deviation.masked_fill(deviation.isnan(), 0.0) + STD_FLOOR  # NaN: a single frame
    return centred / deviation[:, :, None]
