"""What the engine does for a GPU, as far as a CPU can show it.

docs/gpu.md says what each test proves, and what none does: the streams, the pinned memory and the captured graphs need
a GPU, and scripts/bench/gpu measures there.
"""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.asr.parts.preprocessing import features
from nemo.collections.asr.parts.submodules.transducer_decoding.label_looping_base import BatchedLabelLoopingState
from nemo.collections.asr.parts.submodules.transducer_decoding.tdt_label_looping import (
    GreedyBatchedTDTLabelLoopingComputer,
)
from torch._subclasses.fake_tensor import FakeTensorMode

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines import decoder_state, devices, nemo_archive, parakeet
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.decoder_state import SearchState, StateCache
from parakeet_stt.engines.gpu import layers
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.steps import encoder as encoding
from parakeet_stt.engines.steps import transfer
from parakeet_stt.engines.steps.graphs import Tensors
from parakeet_stt.engines.steps.search import GraphSearch
from parakeet_stt.engines.steps.transfer import Deferred, Download, Padded, Upload
from parakeet_stt.errors import DeviceLost, OutOfMemory, RecognitionError
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk, ChunkResult
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Token
from tests.conftest import SAMPLES
from tests.engines import fake_gpu

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def own() -> Parakeet:
    """An engine of this module's own, in which attributes may be replaced."""
    return Parakeet(BUNDLED_FILE, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def utterances() -> list[Audio]:
    long, _ = soundfile.read(SAMPLES / "two-minutes.flac", dtype="float32")
    return [Audio(long[start * 16_000 : start * 16_000 + length]) for start, length in
            ((0, 50_000), (12, 123_456), (25, 17_000), (40, 96_000), (60, 64_000))]  # fmt: skip


@pytest.fixture
def gpu_rules(own: Parakeet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parakeet]:
    """The rules for a GPU, on a CPU: no number is read, and NeMo's search for CUDA graphs, run without graphs.

    That search gives results as wide as the widest batch before, and states of as many items.
    """
    search = own._computer
    monkeypatch.setattr(own, "_waits", False)
    monkeypatch.setattr(own, "_search", search)
    monkeypatch.setattr(search, "torch_impl", search.cuda_graphs_impl)
    before = search.cuda_graphs_mode
    search.force_cuda_graphs_mode("no_graphs")
    yield own
    search.cuda_graphs_mode = before
    search.reset_cuda_graphs_state()


def values(tokens: Sequence[Token]) -> list[tuple[int, float, float]]:
    """What must be the same to the bit."""
    return [(token.id, token.start, token.end) for token in tokens]


def all_values(results: Sequence[Any]) -> list[list[tuple[int, float, float]]]:
    return [values(one.tokens) for one in results]


def speak(
    engine: Parakeet, audio: Audio, *, through: str, phrases: Phrases = ()
) -> list[list[tuple[int, float, float]]]:
    """Stable tokens of chunks of 10 frames with 12 frames of left and 5 of right context.

    through: what becomes of a state between two chunks: kept as it is, pickled, without its number as after a restart,
    or only the number, without the arrays.
    """
    count = audio.length // FRAME_SAMPLES // 10
    state: Any = None
    found = []
    for part in range(count):
        start = part * 10 * FRAME_SAMPLES
        left = min(start, 12 * FRAME_SAMPLES)
        is_last = part == count - 1
        end = audio.length if is_last else start + 15 * FRAME_SAMPLES
        right = 0 if is_last else max(0, min(end, audio.length) - start - 10 * FRAME_SAMPLES)
        chunk = Chunk(Audio(audio.samples[start - left : end]), left, right, state)
        (result,) = engine.decode_chunks([chunk], [phrases] if phrases else ())
        found.append([(token.id, token.start + (start - left) / SAMPLE_RATE, token.end) for token in result.stable])
        assert isinstance(result.state, SearchState)
        state = {
            "the cache": result.state,
            "a pickle": pickle.loads(pickle.dumps(result.state)),
            "a restart": dataclasses.replace(result.state, number=None),
            "the number": dataclasses.replace(result.state, hidden=result.state.hidden * 0, label=0, jump=0),
        }[through]
    return found


# Launching and collecting


def test_batches_launched_before_others_are_collected_give_what_recognize_gives(
    own: Parakeet, utterances: list[Audio]
) -> None:
    expected = all_values(own.recognize(utterances))
    batches = [utterances[:2], utterances[2:3], utterances[3:], utterances]
    pending = [own.launch(batch) for batch in batches]
    found = [all_values(one.result()) for one in reversed(pending)][::-1]
    assert found == [expected[:2], expected[2:3], expected[3:], expected]
    assert sum(map(len, expected)) > 60
    assert own.launch([]).result() == []
    assert own.launch_chunks([]).result() == []


def test_a_result_may_be_asked_for_again(own: Parakeet, utterances: list[Audio]) -> None:
    pending = own.launch(utterances[:1])
    assert pending.result() is pending.result()


def test_the_rules_for_a_gpu_give_the_same_tokens(own: Parakeet, utterances: list[Audio], request: Any) -> None:
    expected = [own.recognize(batch) for batch in (utterances, utterances[:2], utterances[2:3])]
    spoken = [speak(own, audio, through="the cache") for audio in utterances[:2]]
    engine: Parakeet = request.getfixturevalue("gpu_rules")
    search = engine._computer
    for batch, results in zip((utterances, utterances[:2], utterances[2:3]), expected, strict=True):
        found = engine.recognize(batch)  # the second and third batch are narrower than the first
        assert all_values(found) == all_values(results)
        for one, other in zip(found, results, strict=True):
            expected_logprobs = [token.logprob for token in other.tokens]
            assert [token.logprob for token in one.tokens] == pytest.approx(expected_logprobs, abs=1e-4)
    assert search.state.batch_size == len(utterances)
    assert [speak(engine, audio, through="the cache") for audio in utterances[:2]] == spoken


def test_more_tokens_than_are_likely_are_all_found(
    gpu_rules: Parakeet, utterances: list[Audio], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is not decoded again for that: only its tokens are scored again."""
    expected = all_values(gpu_rules.recognize(utterances))
    spoken = speak(gpu_rules, utterances[1], through="the cache")
    decoded: list[int] = []
    decode = gpu_rules._decode

    def note(encoded: torch.Tensor, *others: Any) -> Any:
        decoded.append(len(encoded))
        return decode(encoded, *others)

    monkeypatch.setattr(gpu_rules, "_decode", note)
    monkeypatch.setattr(parakeet, "likely_width", lambda frames: 2)
    assert all_values(gpu_rules.recognize(utterances)) == expected
    assert decoded == [len(utterances)]
    assert speak(gpu_rules, utterances[1], through="the cache") == spoken


def test_nothing_waits_for_a_gpu_between_launch_and_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a launch but the upload's streams and the search, on tensors of a GPU that have no data.

    One copy to the host is queued for each batch.
    """
    engine = fake_gpu.load(monkeypatch)
    batch = [Audio(np.zeros(length, np.float32)) for length in (32_000, 50_000, 16_000)]
    right = 4 * FRAME_SAMPLES
    chunks = [Chunk(batch[0], 0, right, None), Chunk(batch[1], right, 0, None), Chunk(batch[2], right, right, None)]
    phrases: list[Phrases] = [(), ("tram",), ("ocean",)]
    with fake_gpu.on_gpu(engine, monkeypatch) as watch:
        launches: list[Callable[[], object]] = [
            lambda: engine.launch(batch),
            lambda: engine.launch(batch, phrases),
            lambda: engine.launch_chunks(chunks),
            lambda: engine.launch_chunks(chunks, phrases),
            lambda: engine.launch_chunks(give_states(engine, chunks, in_cache=False), phrases),
            lambda: engine.launch_chunks(give_states(engine, chunks, in_cache=True), phrases),
        ]
        for number, launch in enumerate(launches, 1):
            launch()
            assert watch.downloads == number


def give_states(engine: Parakeet, chunks: Sequence[Chunk], *, in_cache: bool) -> list[Chunk]:
    """The chunks with states from an earlier chunk. in_cache: the engine has them on the device too."""
    numbers: list[int | None] = [*list(engine._states._slots)[-3:]] if in_cache else [None] * 3
    (hidden, cell), predicted = engine._states.initial.predictor_states, engine._states.initial.predictor_outputs
    arrays = [np.zeros((part.shape[0], part.shape[2]), np.int16) for part in (hidden, cell, predicted)]
    state = SearchState(arrays[0], arrays[1], arrays[2], label=1, jump=0, phrase_state=0, phrases=("a",))
    states = [dataclasses.replace(state, number=number) for number in numbers]
    return [dataclasses.replace(chunk, state=state) for chunk, state in zip(chunks, states, strict=True)]


@pytest.mark.parametrize("waiting", [
    lambda tensor: int(tensor.max()),
    lambda tensor: tensor.tolist(),
    lambda tensor: tensor.cpu(),
    lambda tensor: torch.zeros(3).to(fake_gpu.GPU),
    lambda tensor: torch.tensor([1, 2], device=fake_gpu.GPU),
    lambda tensor: tensor[tensor > 0],
    lambda tensor: bool(tensor.any()),
    lambda tensor: tensor.nonzero(),
])  # fmt: skip
def test_what_waits_would_be_noticed(waiting: Any) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        tensor = torch.zeros(3, device=fake_gpu.GPU)
        with fake_gpu.NoWaiting(), pytest.raises((fake_gpu.Waited, RuntimeError)):
            waiting(tensor)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OutOfMemory),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), DeviceLost),
        (RuntimeError("shapes do not match"), RecognitionError),
    ],
)
@pytest.mark.parametrize("place", ["launch", "result"])
def test_errors_of_the_device_leave_launch_or_result_as_ours(
    place: str, raised: RuntimeError, expected: type, own: Parakeet, utterances: list[Audio], monkeypatch: Any
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    chunk = Chunk(utterances[0], 0, 0, None)
    if place == "launch":
        monkeypatch.setattr(type(own._encoder), "__call__", fail)
        for launch in (lambda: own.launch(utterances), lambda: own.launch_chunks([chunk])):
            with pytest.raises(expected):
                launch()
    else:
        pending: list[Deferred[Any]] = [own.launch(utterances), own.launch_chunks([chunk])]
        with monkeypatch.context() as only_here:
            only_here.setattr(Download, "arrays", fail)
            for one in pending:
                with pytest.raises(expected):
                    one.result()
        assert len(pending[0].result()) == len(utterances)  # asked again, the device has recovered


# Copies


class Copied:
    """An event after a copy. happened: names of what happened, in order."""

    def __init__(self, name: str, happened: list[str]) -> None:
        self._name, self._happened = name, happened

    def synchronize(self) -> None:
        self._happened.append(f"waited for {self._name}")


def test_a_host_buffer_is_filled_again_only_after_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    upload = Upload(CPU)
    memories: list[int] = []

    def copy(memory: torch.Tensor) -> tuple[torch.Tensor, Copied]:
        number = len(memories)
        memories.append(memory.data_ptr())
        happened.append(f"copied {number}")
        return memory.clone(), Copied(str(number), happened)

    monkeypatch.setattr(upload, "_copy", copy)
    sent = [upload.send(Padded([np.full(3, number, np.float32)], 1, 4)) for number in range(5)]
    assert happened == ["copied 0", "copied 1", "copied 2", "waited for 0", "copied 3", "waited for 1", "copied 4"]
    assert len(set(memories[: transfer.SLOTS])) == transfer.SLOTS  # a buffer each
    assert memories[3:] == memories[:2]  # used again, not allocated again
    for number, (rows,) in enumerate(sent):
        assert rows.tolist() == [[number, number, number, 0]]


def test_one_upload_carries_rows_and_arrays_of_all_types() -> None:
    upload = Upload(CPU)
    arrays: list[transfer.Array] = [
        np.arange(6).reshape(2, 3),
        np.array([1.5, -2], np.float16),
        np.zeros((2, 0, 3), np.int16),
        np.arange(4, dtype=np.float32)[::2],
        np.arange(6).reshape(2, 3).T,
    ]
    for _ in range(2 * transfer.SLOTS):  # a used buffer has old samples in it
        rows, *found = upload.send(Padded([np.ones(5, np.float32), np.ones(2, np.float32)], 3, 7), arrays)
        assert rows.tolist() == [[1] * 5 + [0] * 2, [1] * 2 + [0] * 5, [0] * 7]
        for tensor, array in zip(found, arrays, strict=True):
            assert tensor.numpy().dtype == array.dtype
            assert np.array_equal(tensor.numpy(), array)
    assert upload.send(Padded([np.ones(2, np.float32)], 1, 2))[0].tolist() == [[1, 1]]


def test_one_download_carries_tensors_of_all_types() -> None:
    tensors = [torch.arange(3, dtype=torch.int32), torch.randn(2, 3).T, torch.zeros(4, 0, dtype=torch.int32),
               torch.randn(3).half(), torch.randn(2, 2).bfloat16()]  # fmt: skip
    found = Download(tensors).arrays()
    for array, tensor in zip(found[:4], tensors[:4], strict=True):
        assert np.array_equal(array, tensor.numpy())
    assert torch.equal(torch.from_numpy(found[4].copy()).view(torch.bfloat16), tensors[4])


def test_results_keep_nothing_of_the_batch_alive(own: Parakeet, utterances: list[Audio]) -> None:
    (hypothesis, *_) = own.recognize(utterances)
    tokens: Any = hypothesis.tokens
    assert all(array.base is None for array in (tokens.ids, tokens.starts, tokens.ends, tokens.logprobs))


# The encoder


def test_frames_are_counted_on_the_host_as_the_encoder_counts_them(own: Parakeet) -> None:
    lengths = [*range(1, 2_000, 37), *range(15_000, 17_000, 79), 47_999, 48_000, 48_001]
    with torch.inference_mode():
        _, frames = own._encode([Audio(np.zeros(length, np.float32)) for length in lengths])
    assert own._encoder.frames(lengths).tolist() == frames.tolist()
    assert own._encoder.frames([0]).tolist() == [0]


def test_the_normalization_is_nemos() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([9, 1, 12, 5])
    plain = torch.randn(4, 6, 12)
    masked = plain.masked_fill((torch.arange(12) >= lengths[:, None])[:, None], 0)
    expected, _, _ = features.normalize_batch(plain, lengths, "per_feature")
    assert torch.equal(encoding.normalize(masked, lengths), expected)


@pytest.mark.parametrize("frames", [1000, 1001, 77, 8])
def test_the_layers_for_a_gpu_compute_what_nemos_do(frames: int) -> None:
    model = nemo_archive.restore(BUNDLED_FILE).eval()
    torch.manual_seed(0)
    lengths = torch.tensor([frames, frames - 3, frames // 2, frames // 2 + 1, 1])
    beyond = (torch.arange(frames) >= lengths[:, None])[:, None]
    signal = torch.randn(len(lengths), model.encoder._feat_in, frames).masked_fill(beyond, 0)
    with torch.inference_mode():
        expected, expected_counts = model.encoder.forward_internal(signal, lengths)
    layers.replace_layers(model.encoder)
    assert sum(isinstance(one, layers.Convolution) for one in model.encoder.modules()) == len(model.encoder.layers)
    assert isinstance(model.encoder.pre_encode.conv, layers.Subsampling)
    with torch.inference_mode(), layers.fused_attention():
        found, counts = model.encoder.forward_internal(signal, lengths)
    assert torch.equal(counts, expected_counts)
    for one, own, count in zip(found, expected, counts, strict=True):
        assert (one - own)[:, :count].abs().max() < 1e-5  # of values up to 6


def test_a_gpu_sees_few_sizes(own: Parakeet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which all have rows of 16 bytes, as tensor cores want them."""
    monkeypatch.setattr(own._encoder, "_pads", True)
    monkeypatch.setattr(own._encoder, "_shortest", 0)
    seen = set()
    for count in range(1, 129):
        for samples in range(1_000, 24 * SAMPLE_RATE + 1, 9_500):
            items, padded = own._encoder.shape([1_000] * (count - 1) + [samples])
            seen.add((items, padded))
            assert count <= items < count + encoding.ITEMS_ON_GPU
            assert samples <= padded < samples + encoding.FRAMES_ON_GPU * FRAME_SAMPLES
    assert len(seen) < 400
    assert all(frames % layers.FRAMES == 0 for frames in own._encoder.frames([padded for _, padded in seen]))


def test_what_pads_a_batch_gives_nothing_and_changes_nothing(
    own: Parakeet, utterances: list[Audio], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = all_values(own.recognize(utterances))
    spoken = speak(own, utterances[1], through="a restart", phrases=("tram",))
    boosted = all_values(own.recognize(utterances, [(), ("tram",), (), (), ()]))
    monkeypatch.setattr(own._encoder, "_pads", True)
    assert own._encoder.shape([1_000] * 5)[0] == 8
    assert all_values(own.recognize(utterances)) == expected
    assert all_values(own.recognize(utterances, [(), ("tram",), (), (), ()])) == boosted
    assert speak(own, utterances[1], through="a restart", phrases=("tram",)) == spoken


def test_results_do_not_depend_on_the_bucket(own: Parakeet, utterances: list[Audio], monkeypatch: Any) -> None:
    """With a stand-in for the CUDA graphs, which like them gives the same tensors each time."""
    batches = [utterances[:1], utterances[:3], utterances, utterances[2:]]
    expected = [all_values(own.recognize(batch)) for batch in batches]
    spoken = speak(own, utterances[1], through="the cache")
    shapes: list[tuple[int, ...]] = []

    def capture(work: Callable[[], Tensors]) -> Callable[[], Tensors]:
        outputs = work()

        def replay() -> Tensors:
            shapes.append(tuple(outputs[0].shape[:2]))
            for output, new in zip(outputs, work(), strict=True):
                output.copy_(new)
            return outputs

        return replay

    monkeypatch.setattr(encoding, "capture", capture)
    monkeypatch.setattr(own._encoder, "_mode", "graphs")
    monkeypatch.setattr(own._encoder, "_graphs", {})
    with torch.inference_mode():
        own._encoder.capture(8, 8.0)
    pending = [own.launch(batch) for batch in batches]
    assert [all_values(one.result()) for one in pending] == expected
    assert shapes == [(1, 64), (4, 128), (8, 128), (4, 80)]
    assert speak(own, utterances[1], through="the cache") == spoken


def test_buckets_are_few_and_large_batches_have_none(own: Parakeet, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = encoding.bucket_shapes(1000, 1000)
    assert len(shapes) == len(set(shapes)) <= 40
    assert max(items * samples for items, samples in shapes) <= encoding.GRAPH_SECONDS * SAMPLE_RATE
    monkeypatch.setattr(own._encoder, "_graphs", dict.fromkeys(shapes))
    for items in (1, 2, 3, 5, 8, 30):
        for samples in (1_000, 16_000, 70_000, 320_000):
            bucket = own._encoder.shape([samples] * items)
            if bucket not in shapes:
                assert bucket == (items, max(samples, encoding.SHORTEST_ON_CPU))
                assert items * samples > encoding.GRAPH_SECONDS * SAMPLE_RATE / 4
            else:
                assert bucket[0] >= items
                assert bucket[1] >= samples
    assert own._encoder.shape([24 * SAMPLE_RATE] * 256) == (256, 24 * SAMPLE_RATE)
    small = [(items, frames * FRAME_SAMPLES) for frames in (32, 64) for items in (1, 2)]
    assert encoding.bucket_shapes(2, 5.0) == small


def test_tf32_is_for_the_encoder_alone(own: Parakeet, utterances: list[Audio], monkeypatch: Any) -> None:
    seen = {}

    def note(name: str, call: Any) -> Any:
        def noted(*arguments: Any, **named: Any) -> Any:
            seen[name] = torch.backends.cuda.matmul.allow_tf32
            return call(*arguments, **named)

        return noted

    monkeypatch.setattr(own._encoder, "_uses_tf32", True)
    monkeypatch.setattr(own._encoder, "_network", note("encoder", own._encoder._network))
    monkeypatch.setattr(own._encoder._featurizer, "forward", note("mel", own._encoder._featurizer.forward))
    monkeypatch.setattr(own, "_decode", note("search", own._decode))
    own.recognize(utterances[:1])
    assert seen == {"mel": False, "encoder": True, "search": False}
    with devices.tf32(enabled=False):
        assert not torch.backends.cuda.matmul.allow_tf32


def test_both_searches_are_warmed_at_their_widest(gpu_rules: Parakeet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool, tuple[int, int]]] = []
    decode = gpu_rules._decode

    def note(encoded: torch.Tensor, frames: torch.Tensor, trees: Any = None, before: Any = None) -> Any:
        seen.append((trees is not None, before is not None, (encoded.shape[0], encoded.shape[1])))
        return decode(encoded, frames, trees, before)

    monkeypatch.setattr(gpu_rules, "_decode", note)
    gpu_rules.warm_up(6, 4.0)
    widest = 6, int(gpu_rules._encoder.frames([4 * SAMPLE_RATE])[0])
    for has_phrases in (False, True):
        (first, *_) = [(before, shape) for trees, before, shape in seen if trees == has_phrases and shape[0] > 1]
        assert first[1][0] == widest[0]
        assert first[1][1] >= widest[1]
    assert (True, True) in [(trees, before) for trees, before, _ in seen]  # a chunk with phrases
    captured = gpu_rules._computer.state
    assert captured.batch_size >= 6
    gpu_rules.recognize([Audio(np.zeros(4 * SAMPLE_RATE, np.float32))] * 6)
    assert gpu_rules._computer.state is captured  # nothing larger came


def test_compiling_a_kernel_leaves_pythons_bytes_as_they_are() -> None:
    """In another process, of which every `b" "` would be another. What needs a driver is left out."""
    code = """
import inspect
from nemo.core.utils import cuda_python_utils
import parakeet_stt.engines.steps.search
exec(inspect.getsource(cuda_python_utils.run_nvrtc), vars(cuda_python_utils))  # as where no compiled files are kept
cuda_python_utils.assert_drv = lambda error: None
class Compiled(Exception): pass
class Driver:
    def cuModuleLoadData(self, code): raise Compiled
cuda_python_utils.cuda = Driver()
try:
    cuda_python_utils.run_nvrtc('extern "C" __global__ void k(int *a) { a[0] = 1; }', b"k", b"k.cu")
except Compiled:
    print(bytes([32])[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split()[-1] == "32"


def test_what_the_search_captures_lies_in_memory_of_its_own(own: Parakeet, monkeypatch: pytest.MonkeyPatch) -> None:
    """NeMo's capture in a memory pool, which lives as long as the graph; one that fails leaves nothing half made."""
    happened: list[str] = []

    class Pool:
        def __del__(self) -> None:
            happened.append("given back")

    @contextmanager
    def use(pool: Pool) -> Iterator[None]:
        happened.append("begun")
        yield
        happened.append("over")

    def reinitialize(search: Any, encoded: torch.Tensor) -> None:
        happened.append("captured")
        search.full_graph = "a graph"
        if len(encoded) == 3:
            raise torch.OutOfMemoryError

    search = GraphSearch.like(own._computer)
    monkeypatch.setattr(torch.cuda, "MemPool", Pool)
    monkeypatch.setattr(torch.cuda, "use_mem_pool", use)
    monkeypatch.setattr(GreedyBatchedTDTLabelLoopingComputer, "_graph_reinitialize", reinitialize)
    with FakeTensorMode(allow_non_fake_inputs=True):
        batches = [torch.zeros(count, 1, device=fake_gpu.GPU) for count in (1, 2, 3)]
    search._graph_reinitialize(batches[0])
    assert happened == ["begun", "captured", "over"]
    search._graph_reinitialize(batches[1])
    assert happened[3:] == ["begun", "captured", "over", "given back"]
    with pytest.raises(torch.OutOfMemoryError):
        search._graph_reinitialize(batches[2])
    assert search.full_graph is None


# States of live sessions


@pytest.mark.parametrize("phrases", [(), ("midnight", "tram")])
def test_a_state_is_the_same_in_the_cache_and_in_its_copy(
    own: Parakeet, utterances: list[Audio], phrases: Phrases
) -> None:
    spoken = {way: speak(own, utterances[1], through=way, phrases=phrases)
              for way in ("the cache", "a pickle", "a restart", "the number")}  # fmt: skip
    expected = spoken.pop("the cache")
    assert sum(map(len, expected)) > 20
    assert set(map(str, spoken.values())) == {str(expected)}


def test_a_pickled_state_goes_on_in_another_process(own: Parakeet, utterances: list[Audio]) -> None:
    """Another engine has none of the numbers, as another process."""
    first = Chunk(Audio(utterances[1].samples[: 40 * FRAME_SAMPLES]), 0, 5 * FRAME_SAMPLES, None)
    (result,) = own.decode_chunks([first])
    other = Parakeet(BUNDLED_FILE, device="cpu", precision="float32")
    following = Chunk(utterances[1], 35 * FRAME_SAMPLES, 0, pickle.loads(pickle.dumps(result.state)))
    (here,), (there,) = own.decode_chunks([following]), other.decode_chunks([following])
    assert values(here.stable) == values(there.stable) != []


def test_sessions_in_one_batch_keep_their_own_states(own: Parakeet, utterances: list[Audio]) -> None:
    """Some with a state in the cache, some with a copy, some without any: each as alone."""
    part = 12 * FRAME_SAMPLES

    def make(audio: Audio, state: Any) -> Chunk:
        return Chunk(Audio(audio.samples[: 2 * part]), part if state else 0, 3 * FRAME_SAMPLES, state)

    def run(chunks: Sequence[Chunk]) -> list[ChunkResult]:
        return own.decode_chunks(chunks)

    begun = run(
        [Chunk(Audio(one.samples[: part + 3 * FRAME_SAMPLES]), 0, 3 * FRAME_SAMPLES, None) for one in utterances]
    )
    states: list[Any] = [one.state for one in begun]
    states[1] = dataclasses.replace(states[1], number=None)
    states[2] = None
    states[4] = pickle.loads(pickle.dumps(dataclasses.replace(states[4], number=12345)))
    chunks = [make(audio, state) for audio, state in zip(utterances, states, strict=True) if audio.length >= 2 * part]
    assert len(chunks) > 2
    alone = [run([chunk])[0] for chunk in chunks]
    for one, other in zip(run(chunks), alone, strict=True):
        assert values(one.stable) == values(other.stable)
        assert values(one.unstable) == values(other.unstable)


def test_the_cache_is_bounded_and_the_state_used_longest_ago_gives_way(
    own: Parakeet, utterances: list[Audio], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = own._computer
    cache = StateCache(search, CPU, capacity=3)
    monkeypatch.setitem(own.__dict__, "_states", cache)
    expected = [speak(own, audio, through="a restart") for audio in utterances]
    assert [speak(own, audio, through="the cache") for audio in utterances] == expected
    assert len(cache) == 3
    begin = [Chunk(audio, 0, 5 * FRAME_SAMPLES, None) for audio in utterances]
    numbers = [number_of(one) for one in own.decode_chunks(begin)]
    assert [number is not None for number in numbers] == [True] * 3 + [False] * 2  # more than fit at once
    states = [one.state for one in own.decode_chunks(begin[:3])]
    own.decode_chunks([dataclasses.replace(begin[0], state=states[0])])  # 0 is used, 1 gives way
    kept = [isinstance(one, SearchState) and one.number in cache._slots for one in states]
    assert kept == [True, False, True]


class TwoLayers:
    """A search whose prediction network has two layers, as the published models'; the bundled model has one."""

    def _get_batched_decoding_state_after_sos(self, device: torch.device, batch_size: int) -> BatchedLabelLoopingState:
        zeros = torch.zeros(batch_size, dtype=torch.long)
        states = torch.randn(2, batch_size, 3), torch.randn(2, batch_size, 3)
        return BatchedLabelLoopingState(states, torch.randn(batch_size, 1, 3), zeros, zeros, [], zeros)


def test_states_of_several_layers_are_contiguous_as_cudnn_wants_them() -> None:
    """cuDNN's LSTM refuses others; a CPU's takes them."""
    search = TwoLayers()
    wide = search._get_batched_decoding_state_after_sos(CPU, 5)
    narrow = decoder_state.trim(wide, 3)
    cache = StateCache(search, CPU, capacity=4)
    place = cache.place([None] * 3, [()] * 3)
    with torch.inference_mode():
        cache.save(narrow, torch.from_numpy(place.new_slots))
        found = cache.load((torch.from_numpy(place.new_slots), torch.zeros(3)), [])
    for state in (narrow, found):
        for part, expected in zip(state.predictor_states, wide.predictor_states, strict=True):
            assert part.is_contiguous()
            assert torch.equal(part, expected[:, :3])


def number_of(result: ChunkResult) -> int | None:
    assert isinstance(result.state, SearchState)
    return result.state.number


def test_no_two_processes_number_their_states_alike(own: Parakeet) -> None:
    search = own._computer
    numbers = [StateCache(search, CPU, capacity=2).place([None, None], [(), ()]).numbers for _ in range(2)]
    assert not set(numbers[0]) & set(numbers[1])
