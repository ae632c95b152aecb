"""The Sortformer diarizer in its streaming form: NeMo's network with an arrival-order speaker cache.

Source: Park et al., "Sortformer" (arXiv 2409.06656); Medennikov et al., "Streaming Sortformer" (arXiv 2507.18446). A
recording goes through in chunks. What the network has to remember of the speakers lies in the state: the frames of each
that it is surest of, and the last frames before the chunk. So an hour takes an hour's time, and no more memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nemo.collections.asr.models import SortformerEncLabelModel
from nemo.collections.asr.modules.sortformer_modules import StreamingSortformerState

from parakeet_stt.audio import Audio
from parakeet_stt.engines import devices, nemo_archive
from parakeet_stt.engines.cpu import packing, subsampling
from parakeet_stt.engines.cpu.memory import MemoryTrimmer
from parakeet_stt.engines.diarizers.voices import LEAST_FRAMES, Rows, VoiceSpace
from parakeet_stt.errors import StartupError, first_line
from parakeet_stt.protocols import FRAME_SAMPLES, SpeakerChunk, SpeakerLayout, SpeakerResult, SpeakerVoices

# Frames of a chunk, of context after it, of the queue before it, between two updates of the cache, and of the cache.
# Source: the model card of nvidia/diar_streaming_sortformer_4spk-v2; the preset of the lowest error, with 30.4 s of
# latency, which a recording does not notice.
CHUNK, RIGHT, QUEUE, UPDATE, CACHE = 340, 40, 40, 300, 188
LEFT = 1  # frames before a chunk that its first frames are computed with
MARGIN = 1  # frame of audio more on either side, so that the spectrogram has no edge there
MELS_A_FRAME = 8
ALONE = 0.5  # only one speaker is likelier than this


@dataclass(frozen=True, slots=True, eq=False)
class SpeakerState:
    """What the network remembers of one recording. Shapes: frames by width of the encoder, frames by speakers.

    cache, cache_said: frames of each speaker, and their probabilities. queue: the last frames. silence: mean of
    `silent` frames.
    """

    cache: Rows
    cache_said: Rows
    queue: Rows
    silence: Rows
    silent: int


class Sortformer:
    """A loaded Sortformer on one device. Not thread-safe."""

    def __init__(self, path: Path, *, device: str = "auto") -> None:
        """Load the .nemo file at `path`. The weights stay float32. Raises StartupError if it is no such model."""
        self._device = devices.resolve(device)
        try:
            model = nemo_archive.restore(path)
        except Exception as exc:  # NeMo raises whatever tar, YAML, Hydra and torch raise
            raise StartupError(f"{path} can't be loaded as a NeMo diarizer: {first_line(exc)}") from exc
        if not isinstance(model, SortformerEncLabelModel):
            raise StartupError(f"{path} is a {type(model).__name__}, not a Sortformer: set STT_DIARIZER to one")
        self._model: Any = _prepare(model, self._device)
        self._trimmer = MemoryTrimmer() if self._device.type == "cpu" else None
        voices = model.cfg.get("voices")
        try:
            self._voice_space = None if voices is None else VoiceSpace.of(voices, int(model.cfg.preprocessor.features))
        except (KeyError, TypeError, ValueError) as exc:
            raise StartupError(f"{path} has a space of voices that can't be read: {first_line(exc)}") from exc
        self.layout = SpeakerLayout(
            speakers=int(model.sortformer_modules.n_spk),
            chunk=CHUNK * FRAME_SAMPLES,
            left_context=(LEFT + MARGIN) * FRAME_SAMPLES,
            right_context=(RIGHT + MARGIN) * FRAME_SAMPLES,
            same_voice=None if self._voice_space is None else self._voice_space.same,
        )

    def warm_up(self) -> None:
        """Run once what the first batch would be slow at."""
        audio = Audio(np.zeros(10 * FRAME_SAMPLES, np.float32))
        self.diarize([SpeakerChunk(audio, 0, 0, self.diarize([SpeakerChunk(audio, 0, 0, None)])[0].state)])

    def diarize(self, batch: Sequence[SpeakerChunk]) -> list[SpeakerResult]:
        """Tell the speakers of one chunk of each of several recordings; see `protocols.Diarizer`."""
        results: dict[int, SpeakerResult] = {}
        with devices.model_errors(len(batch), self._device), torch.inference_mode():
            # NeMo's update takes one length of context before the chunk for a whole batch.
            for has_left in (False, True):
                rows = [row for row, chunk in enumerate(batch) if (chunk.left_context > 0) == has_left]
                found = self._diarize([batch[row] for row in rows], LEFT if has_left else 0) if rows else []
                results.update(zip(rows, found, strict=True))
        if self._trimmer:
            self._trimmer()
        return [results[row] for row in range(len(batch))]

    def _diarize(self, batch: Sequence[SpeakerChunk], left: int) -> list[SpeakerResult]:
        """A batch with `left` frames of context before each chunk."""
        features, sizes = self._features(batch, left)
        frames = -(-sizes // MELS_A_FRAME) - left
        modules = self._model.sortformer_modules
        state = self._load([_state_of(chunk) for chunk in batch])
        right = max(0, int(frames.max()) - CHUNK)
        if frames.max() <= 0:  # less than a frame of the spectrogram
            empty = np.zeros((0, modules.n_spk), np.float32)
            return [SpeakerResult(empty, chunk.state) for chunk in batch]
        after, said = self._model.forward_streaming_step(
            processed_signal=features,
            processed_signal_length=sizes,
            streaming_state=state,
            total_preds=torch.zeros((len(batch), 0, modules.n_spk), device=self._device),
            left_offset=left * MELS_A_FRAME,
            right_offset=right * MELS_A_FRAME,
        )
        probabilities = said.float().cpu().numpy()
        counts = frames.clamp(0, CHUNK).tolist()
        states = self._save(after)
        results = []
        for row, count in enumerate(counts):
            own = probabilities[row, :count].copy()
            results.append(SpeakerResult(own, states[row], self._voices(features[row, left * MELS_A_FRAME :], own)))
        return results

    def _voices(self, features: torch.Tensor, probabilities: Rows) -> SpeakerVoices | None:
        """The voice of each speaker, in the frames in which only they speak. features: of the part, from its start."""
        if self._voice_space is None:
            return None
        ordered = np.sort(probabilities, axis=1)
        alone = (ordered[:, -1] > ALONE) & (ordered[:, -2] < ALONE)
        numbers = np.where(alone, probabilities.argmax(1), -1).repeat(MELS_A_FRAME)
        spectrogram = features[: len(numbers)].float().cpu().numpy()
        numbers = numbers[: len(spectrogram)]
        voices = np.zeros((probabilities.shape[1], self._voice_space.width), np.float32)
        for number in range(len(voices)):
            own = spectrogram[numbers == number]
            if len(own) >= LEAST_FRAMES * MELS_A_FRAME:
                voices[number] = self._voice_space.place(own)
        return voices

    def _features(self, batch: Sequence[SpeakerChunk], left: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The spectrogram of each chunk with its context, shape (batch, mel frames, mels), and the number of frames."""
        lengths = [chunk.audio.length for chunk in batch]
        audio = torch.zeros(len(batch), max(lengths))
        for row, chunk in enumerate(batch):
            assert isinstance(chunk.audio, Audio)
            audio[row, : lengths[row]] = torch.from_numpy(chunk.audio.samples)
        features, sizes = self._model.preprocessor(
            input_signal=audio.to(self._device), length=torch.tensor(lengths, device=self._device)
        )
        skipped = MARGIN * MELS_A_FRAME if left else 0
        most = (left + CHUNK + RIGHT) * MELS_A_FRAME
        sizes = (sizes - skipped).clamp(0, most)
        return features[:, :, skipped : skipped + max(1, int(sizes.max()))].transpose(1, 2), sizes

    def _load(self, given: Sequence[SpeakerState | None]) -> Any:
        """NeMo's state of a batch. None: of a recording that begins."""
        modules = self._model.sortformer_modules
        state: Any = modules.init_streaming_state(batch_size=len(given), async_streaming=True, device=self._device)
        for row, one in enumerate(given):
            if one is None:
                continue
            cached, queued = len(one.cache), len(one.queue)
            state.spkcache[row, :cached] = torch.from_numpy(one.cache)
            state.spkcache_preds[row, :cached] = torch.from_numpy(one.cache_said)
            state.spkcache_lengths[row] = cached
            state.fifo[row, :queued] = torch.from_numpy(one.queue)
            state.fifo_lengths[row] = queued
            state.mean_sil_emb[row] = torch.from_numpy(one.silence)
            state.n_sil_frames[row] = one.silent
        return state

    def _save(self, state: StreamingSortformerState) -> list[SpeakerState]:
        """The state of each recording, in the host's memory."""
        tensors = (state.spkcache, state.spkcache_preds, state.fifo, state.mean_sil_emb)
        cache, said, queue, silence = (tensor.float().cpu().numpy() for tensor in tensors)
        counts = (state.spkcache_lengths, state.fifo_lengths, state.n_sil_frames)
        rows = zip(*(count.tolist() for count in counts), strict=True)
        return [
            SpeakerState(
                cache[row, :cached].copy(), said[row, :cached].copy(), queue[row, :queued].copy(), silence[row].copy(),
                silent,
            )
            for row, (cached, queued, silent) in enumerate(rows)
        ]  # fmt: skip


def _state_of(chunk: SpeakerChunk) -> SpeakerState | None:
    assert chunk.state is None or isinstance(chunk.state, SpeakerState)
    return chunk.state


def _prepare(model: Any, device: torch.device) -> Any:
    """Set once, at load, everything that decides a result."""
    modules = model.sortformer_modules
    modules.chunk_len, modules.chunk_left_context, modules.chunk_right_context = CHUNK, LEFT, RIGHT
    modules.fifo_len, modules.spkcache_update_period, modules.spkcache_len = QUEUE, UPDATE, CACHE
    modules._check_streaming_parameters()
    model.streaming_mode, model.async_streaming = True, True  # rows of a batch may have caches of different lengths
    model.preprocessor.featurizer.dither = 0.0
    model.preprocessor.featurizer.pad_to = 0
    model.to(device)
    if device.type == "cpu":
        packing.pack(model.encoder)
        subsampling.replace_subsampling(model.encoder.pre_encode)
        packing.pack(model.transformer_encoder)
    model.freeze()
    model.eval()
    return model
