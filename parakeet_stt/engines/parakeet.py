"""The Parakeet recognizer: NeMo's transducer models with token-and-duration decoding.

The only path used is encoder → greedy decoder → scoring, never `model.transcribe()`, which leaves the network in train
mode. Token times, durations and log-probabilities come from the scoring pass (docs/decisions/0001-scoring-pass.md).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import OmegaConf, open_dict

from parakeet_stt.audio import SAMPLE_RATE, Audio, Clip
from parakeet_stt.engines import devices
from parakeet_stt.engines.cpu import attention, int8, int8_layer, packing, subsampling
from parakeet_stt.engines.cpu.memory import MemoryTrimmer, keep_freed_memory
from parakeet_stt.errors import OutOfMemory, StartupError, first_line
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk, ChunkResult
from parakeet_stt.text.phrases import NO_PHRASES, Phrases
from parakeet_stt.text.transcript import Hypothesis

for noisy in ("nv_one_logger", "OneLogger"):  # NeMo's telemetry announces at import that it does nothing
    logging.getLogger(noisy).setLevel(logging.ERROR)

import nemo.collections.asr as nemo_asr  # noqa: E402
from nemo.core.classes.common import typecheck  # noqa: E402
from nemo.utils import logging as nemo_logging  # noqa: E402

from parakeet_stt.engines import decoder_state, nemo_archive  # noqa: E402
from parakeet_stt.engines.boosting import Boosting  # noqa: E402
from parakeet_stt.engines.cpu.search import Found, make_search  # noqa: E402
from parakeet_stt.engines.decoder_state import SearchState, StateCache  # noqa: E402
from parakeet_stt.engines.gpu import layers  # noqa: E402
from parakeet_stt.engines.steps.encoder import Encoder, EncoderMode  # noqa: E402
from parakeet_stt.engines.steps.pieces import Pieces  # noqa: E402
from parakeet_stt.engines.steps.scoring import (  # noqa: E402
    Scorer,
    Scores,
    SearchResult,
    likely_width,
    split_tokens,
)
from parakeet_stt.engines.steps.search import GraphSearch  # noqa: E402
from parakeet_stt.engines.steps.transfer import Deferred, Download, Padded, Upload, pad_columns  # noqa: E402

nemo_logging.setLevel(nemo_logging.ERROR)

# The second has a CTC head beside, which is not used: nvidia/parakeet-tdt_ctc-110m.
TRANSDUCERS = (nemo_asr.models.EncDecRNNTBPEModel, nemo_asr.models.EncDecHybridRNNTCTCBPEModel)
USABLE_MEMORY = 0.7  # of what is free: the allocator leaves gaps, and attention grows with the square of the length
MAX_SYMBOLS = 10  # tokens per encoder frame; the value that Parakeet's own config decodes with
WARM_PHRASES: Phrases = ("hello",)
WARM_SHARES = (1.0, 0.6, 0.4, 0.2, 0.1)  # of the longest utterance, in full batches


class Parakeet:
    """A loaded Parakeet-TDT (or any NeMo BPE transducer with durations) on one device. Not thread-safe."""

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        precision: devices.Precision = "auto",
        threads: int = 0,
        encoder: EncoderMode = "graphs",
    ) -> None:
        """Load the .nemo file at `path` and make it ready to decode.

        device, precision: as in `devices.py`. threads: on a CPU, for the calling thread, which alone should then use
        the model; 0 leaves one core free. encoder: see `steps/encoder.py`; no matter on a CPU.
        Raises StartupError if the file is no such model, or the device is not there or can't do what is asked.
        """
        self._device = devices.resolve(device)
        if self._device.type == "cpu":
            devices.use_threads(threads)
        elif self._device.index is not None:
            torch.cuda.set_device(self._device)  # where graphs are captured and streams are made
        typecheck.set_typecheck_enabled(enabled=False)  # 5 ms a call
        try:
            model = nemo_archive.restore(path, mapped=True)
        except Exception as exc:  # NeMo raises whatever tar, YAML, Hydra and torch raise
            raise StartupError(f"{path} can't be loaded as a NeMo speech model: {first_line(exc)}") from exc
        durations = OmegaConf.select(model.cfg, "decoding.durations")
        if not isinstance(model, TRANSDUCERS):
            raise StartupError(f"{path} is a {type(model).__name__}, not a Parakeet-TDT model")
        if not durations:
            raise StartupError(f"{path} is a transducer without durations, not a Parakeet-TDT model")
        parameters = sum(parameter.numel() for parameter in model.parameters())
        choice = devices.weight_type(precision, self._device, parameters)
        self._dtype, self._precision_reason = choice.dtype, choice.reason
        self._is_quantized = precision == "int8"
        self._model = _prepare(model, self._device, self._dtype, quantize=self._is_quantized)
        nemo_archive.copy_mapped(self._model)
        self._encoder = Encoder(self._model, self._device, mode=encoder)
        self._durations = list(durations)
        self._computer = GraphSearch.like(self._model.decoding.decoding.decoding_computer)
        self._search = make_search(self._computer, self._device)
        self._scorer = Scorer(self._model, self._durations, self._device)
        self._upload = Upload(self._device)
        self._trimmer = MemoryTrimmer() if self._device.type == "cpu" else None
        self._waits = self._device.type == "cpu"  # where reading a number costs nothing, it is read
        self._pieces = Pieces(model.tokenizer)
        if self._device.type == "cpu":
            keep_freed_memory()

    @cached_property
    def _states(self) -> StateCache:
        return StateCache(self._computer, self._device)

    @cached_property
    def _boosting(self) -> Boosting:
        return Boosting(self._computer, self._model.tokenizer, self._pieces)

    @property
    def device(self) -> str:
        """Where the network runs: cpu, cuda, cuda:1."""
        return str(self._device)

    @property
    def precision(self) -> str:
        """The type of the encoder's weights: float32, bfloat16, float16; int8 if those of its linear layers are."""
        return "int8" if self._is_quantized else str(self._dtype).removeprefix("torch.")

    @property
    def precision_reason(self) -> str:
        """Why that type, with what was measured."""
        return self._precision_reason

    @property
    def config(self) -> str:
        """The active NeMo configuration as YAML."""
        text: str = OmegaConf.to_yaml(self._model.cfg, resolve=True)
        return text

    @property
    def vocabulary(self) -> Sequence[str]:
        """The piece of each token id."""
        return self._pieces

    @property
    def frame_samples(self) -> int:
        """Samples of one encoder frame."""
        features, encoder = self._model.cfg.preprocessor, self._model.cfg.encoder
        return int(round(features.window_stride * features.sample_rate) * encoder.subsampling_factor)

    def warm_up(self, max_items: int, max_seconds: float) -> None:
        """Decode noise; see `protocols.Recognizer`.

        On a GPU both searches, the plain one and the one with phrases, go over a batch of the largest size and length,
        since a CUDA graph is captured again for anything larger than before. Files and chunks use the same two. The
        encoder's graphs are captured for each of its buckets.
        """
        noise = np.random.default_rng(0).standard_normal(int(max_seconds * SAMPLE_RATE), np.float32) * np.float32(0.01)
        second = Audio(noise[:SAMPLE_RATE])
        if not self._waits:
            trees = self._boosting.build_trees([WARM_PHRASES])
            with torch.inference_mode():
                self._encoder.capture(max_items, max_seconds)
                items, _ = self._encoder.shape([len(noise)] * max_items)
                encoded, frames = (part[:1] for part in self._encode([Audio(noise)]))
                widest = encoded.repeat(items, 1, 1), frames.repeat(items)
                self._decode(*widest)
                self._decode(*widest, torch.from_numpy(trees).to(self._device).repeat(items))
            for share in WARM_SHARES:  # libraries prepare for new sizes, and memory for large ones is taken
                with suppress(OutOfMemory):  # of a small GPU, which will get smaller batches
                    self.recognize([Audio(noise[: int(share * len(noise))])] * max_items)
            self.decode_chunks([Chunk(second, 0, 0, None)], [WARM_PHRASES])
        self.recognize([second])

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        """Decode each utterance independently, in input order; see `protocols.Recognizer`."""
        return self.launch(batch, phrases).result()

    def decode_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> list[ChunkResult]:
        """Decode one chunk of each of several utterances; see `protocols.Recognizer`."""
        return self.launch_chunks(batch, phrases).result()

    def launch(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> Deferred[list[Hypothesis]]:
        """Queue what `recognize` does, without waiting for a GPU; see `protocols.Recognizer`."""
        return self._launch(batch, phrases) if batch else Deferred(list)

    def launch_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> Deferred[list[ChunkResult]]:
        """Queue what `decode_chunks` does, without waiting for a GPU; see `protocols.Recognizer`."""
        return self._launch_chunks(batch, list(phrases) or [NO_PHRASES] * len(batch)) if batch else Deferred(list)

    def _launch(self, batch: Sequence[Audio], phrases: Sequence[Phrases]) -> Deferred[list[Hypothesis]]:
        with devices.model_errors(len(batch), self._device):
            trees = self._boosting.build_trees(phrases) if any(phrases) else None
            padded = self._pad(batch)
            lengths = np.array([audio.length for audio in batch])
            with torch.inference_mode():
                known = [lengths, *([] if trees is None else [trees + 1])]
                audio, numbers = self._upload.send(padded, [pad_columns(known, padded.items)])
                encoded, frames = self._encoder(audio, numbers[0])
                found, _ = self._decode(encoded, frames, None if trees is None else numbers[1] - 1)
                score = partial(self._score, encoded, found)
                download = Download(score(self._likely_width(encoded, found)).tensors)
        self._trim_memory()

        def collect() -> list[Hypothesis]:
            with devices.model_errors(len(batch), self._device):
                arrays = download.arrays()
                if (most := _missing(arrays)) is not None:
                    arrays = Download(score(most).tensors).arrays()
            return [Hypothesis(own) for own in split_tokens(arrays, self._pieces, [one.duration for one in batch])]

        return Deferred(collect)

    def _launch_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases]) -> Deferred[list[ChunkResult]]:
        """As `_launch`. The frames of each part are counted on the host."""
        with devices.model_errors(len(batch), self._device):
            trees = self._boosting.build_trees(phrases) if any(phrases) else None
            audios = [_in_memory(chunk.audio) for chunk in batch]
            lengths = [audio.length for audio in audios]
            left = np.array([chunk.left_context // FRAME_SAMPLES for chunk in batch])
            right = np.array([chunk.right_context for chunk in batch])
            after_left = np.maximum(self._encoder.frames(lengths) - left, 0)
            counts = np.where(right > 0, (np.array(lengths) - right) // FRAME_SAMPLES - left, after_left)
            rest, ends = after_left - counts, left + counts
            given = [one.state if isinstance(one.state, SearchState) else None for one in batch]
            place = self._states.place(given, phrases)
            known = [lengths, left, counts, ends, rest, place.slots, place.has_phrases]
            padded = self._pad(audios)
            with torch.inference_mode():
                audio, numbers, new_slots, *missing = self._upload.send(
                    padded,
                    [
                        pad_columns(known if trees is None else [*known, trees + 1], padded.items),
                        place.new_slots,
                        *((place.missing, *place.arrays) if place.arrays else ()),
                    ],
                )
                searched, biasing = None if trees is None else numbers[7] - 1, None
                if searched is not None:
                    biasing = self._boosting.computer.biasing_multi_model
                before = self._states.load((numbers[5], numbers[6]), missing, biasing)
                encoded, _ = self._encoder(audio, numbers[0])
                part = decoder_state.gather_frames(encoded, numbers[1], max(1, int(counts.max())))
                found, reached = self._decode(part, numbers[2], searched, before)
                score = partial(self._score, part, found, before=before)
                stable = score(self._likely_width(part, found))
                self._states.save(reached, new_slots)
                after = decoder_state.for_trees(reached, searched, biasing)
                part = decoder_state.gather_frames(encoded, numbers[3], max(1, int(rest.max())))
                found, _ = self._decode(part, numbers[4], searched, after)
                score_rest = partial(self._score, part, found, before=after)
                unstable = score_rest(self._likely_width(part, found))
                tensors = [stable.tensors, unstable.tensors, decoder_state.tensors_of(reached)]
                download = Download([tensor for each in tensors for tensor in each])
        self._trim_memory()

        def collect() -> list[ChunkResult]:
            with devices.model_errors(len(batch), self._device):
                arrays = download.arrays()
                of_part, of_rest, state = arrays[:5], arrays[5:10], arrays[10:]
                if (most := _missing(of_part)) is not None:
                    of_part = Download(score(most).tensors).arrays()
                if (most := _missing(of_rest)) is not None:
                    of_rest = Download(score_rest(most).tensors).arrays()
            seconds = [chunk.audio.duration for chunk in batch]
            states = decoder_state.split_states(state, phrases, place.numbers)
            return list(
                map(
                    ChunkResult,
                    split_tokens(of_part, self._pieces, seconds, left.tolist()),
                    split_tokens(of_rest, self._pieces, seconds, ends.tolist()),
                    states,
                )
            )

        return Deferred(collect)

    def capacity_seconds(self) -> float | None:
        """Padded seconds of audio that fit into the GPU's free memory, by the peak of one batch; None on a CPU."""
        if self._device.type == "cpu":
            return None
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        seconds, count = 10, 16
        self.recognize([Audio(np.zeros(seconds * SAMPLE_RATE, np.float32))] * count)
        used = max(1, torch.cuda.max_memory_allocated(self._device) - before)
        free, _ = torch.cuda.mem_get_info(self._device)
        return USABLE_MEMORY * free / used * seconds * count

    def memory_bytes(self) -> float:
        """Memory that torch has reserved on the GPU; 0 on a CPU."""
        return 0.0 if self._device.type == "cpu" else float(torch.cuda.memory_reserved(self._device))

    def _trim_memory(self) -> None:
        if self._trimmer:
            self._trimmer()

    def _pad(self, batch: Sequence[Audio]) -> Padded:
        rows = [audio.samples for audio in batch]
        return Padded(rows, *self._encoder.shape([len(row) for row in rows]))

    def _encode(self, batch: Sequence[Audio]) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder output, shape (items, frames, features), and each item's number of frames."""
        padded = self._pad(batch)
        audio, numbers = self._upload.send(padded, [pad_columns([[one.length for one in batch]], padded.items)])
        return self._encoder(audio, numbers[0])

    def _decode(
        self, encoded: torch.Tensor, frames: torch.Tensor, trees: torch.Tensor | None = None, before: Any = None
    ) -> tuple[SearchResult, Any]:
        """Greedy search from `before`, a state of NeMo's, or from the beginning. Returns the state after it as well.

        trees: of each item, on the device.
        """
        if trees is None:
            found, state = self._search(x=encoded, out_len=frames, prev_batched_state=before)
        else:
            found, state = self._boosting.search(encoded, frames, trees, before)
        count = len(encoded)
        return (
            SearchResult(
                found.transcript[:count],
                found.timestamps[:count],
                found.current_lengths[:count],
                found.predicted if isinstance(found, Found) else None,
            ),
            decoder_state.trim(state, count),
        )

    def _likely_width(self, encoded: torch.Tensor, found: SearchResult) -> int:
        """Tokens to score of each item; where the number can be read at once, as many as there are."""
        return int(found.lengths.max()) if self._waits else likely_width(encoded.shape[1])

    @torch.inference_mode()
    def _score(self, encoded: torch.Tensor, found: SearchResult, width: int, before: Any = None) -> Scores:
        """Duration and probability of each item's first `width` tokens. before: the state that the search began in."""
        return self._scorer.score(encoded, found.first(width), before or self._states.first(len(encoded)))


def _missing(arrays: Sequence[npt.NDArray[Any]]) -> int | None:
    """The most tokens that an item has, if it has more than were scored. arrays: of `Scores.tensors`."""
    most = int(arrays[0].max())
    return most if most > arrays[1].shape[1] else None


def _prepare(model: Any, device: torch.device, dtype: torch.dtype, *, quantize: bool) -> Any:
    """Set once, at load, everything that decides a result: changing it later rebuilds the decoder."""
    decoding = copy.deepcopy(model.cfg.decoding)
    with open_dict(decoding):
        decoding.strategy = "greedy_batch"
        decoding.greedy = {
            "max_symbols": MAX_SYMBOLS,
            "loop_labels": True,
            "use_cuda_graph_decoder": device.type == "cuda",
        }
    model.change_decoding_strategy(decoding, verbose=False)
    # `null` in the published configurations: on a CPU NeMo then normalizes tokens and durations together, in the type
    # of the weights, and in bfloat16 one frame in eight ties between two durations. The search needs the largest only.
    model.joint.log_softmax = False
    model.preprocessor.featurizer.dither = 0.0  # random noise would make results differ from call to call
    model.preprocessor.featurizer.pad_to = 0
    model.to(device)
    if device.type == "cuda":
        layers.replace_layers(model.encoder)
    model.encoder.to(dtype)  # weights, not autocast; the mel front end stays float32
    for part in (model.decoder, model.joint):  # whose time on a CPU is reading weights for single rows
        part.to(torch.float32 if device.type == "cpu" else dtype)
    if device.type == "cpu":
        attention.use_steady_attention(model.encoder)
        if quantize:
            int8_layer.quantize_encoder(model.encoder)
        else:
            packing.pack(model.encoder)
        subsampling.replace_subsampling(model.encoder.pre_encode)
        if quantize and int8.QuantizedLSTM.is_possible():
            int8.quantize_decoder(model.decoder.prediction, model.joint)
        else:
            recurrent = model.decoder.prediction["dec_rnn"]
            recurrent.lstm = packing.SteppedLSTM(recurrent.lstm)
    model.freeze()
    model.eval()
    return model


def _in_memory(clip: Clip) -> Audio:
    assert isinstance(clip, Audio), f"a {type(clip).__name__} has no samples here"
    return clip
