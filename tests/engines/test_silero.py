"""Both forms of the speech detector give what Silero's own wrapper gives, for each stream on its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch

from parakeet_stt.audio import SAMPLE_RATE, Samples, Span
from parakeet_stt.detector_stream import DetectorStream
from parakeet_stt.engines import silero_onnx, silero_torch
from parakeet_stt.engines.silero_onnx import OnnxDetector, choose_steps
from parakeet_stt.engines.silero_torch import TorchDetector
from parakeet_stt.errors import StartupError
from parakeet_stt.offline.vad_segments import SpeechRules, utterance_spans
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, DetectorStates, SpeechDetector
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities, Windows
from scripts.bench.detector import assemble_audio, cut_windows
from tests.conftest import Sample

ROUNDING = 1e-5  # of one form against itself, in other batches; the state carries it on
FORMS_APART = 1e-4


@pytest.fixture(scope="module")
def onnx() -> OnnxDetector:
    return OnnxDetector()


@pytest.fixture(scope="module")
def network() -> Iterator[TorchDetector]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads that share a processor wait for each other at each step of the LSTM
    yield TorchDetector("cpu")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["onnx", "torch"])
def detector(request: pytest.FixtureRequest, onnx: OnnxDetector, network: TorchDetector) -> SpeechDetector:
    return onnx if request.param == "onnx" else network


@pytest.fixture(scope="module")
def windows() -> Windows:
    return cut_windows(assemble_audio(40, seed=1))


def new_states(streams: int) -> DetectorStates:
    return np.zeros((streams, *DETECTOR_STATE_SHAPE), np.float32)


def alone(detector: SpeechDetector, windows: Windows) -> Probabilities:
    (found,), _ = detector.detect([windows], new_states(1))
    return found


def spans(probabilities: Probabilities) -> list[Span]:
    return [one.span for one in utterance_spans([probabilities], SpeechRules(), 24.0 * SAMPLE_RATE) if one]


def reference(samples: Samples) -> Probabilities:
    """Silero's own wrapper, which takes one window after another and keeps their context and state itself."""
    threads = torch.get_num_threads()
    from silero_vad import load_silero_vad

    torch.set_num_threads(threads)  # importing silero_vad sets one thread
    wrapper = load_silero_vad(onnx=True)
    padded = np.pad(samples, (0, -len(samples) % WINDOW_SAMPLES))
    parts = torch.from_numpy(padded).reshape(-1, WINDOW_SAMPLES)
    return np.array([float(wrapper(part, SAMPLE_RATE)) for part in parts], np.float32)


@pytest.mark.parametrize("name", ["short", "two-sentences"])
def test_it_finds_what_silero_itself_finds(
    name: str, onnx: OnnxDetector, network: TorchDetector, samples: dict[str, Sample]
) -> None:
    audio, _ = soundfile.read(samples[name].path, dtype="float32")
    expected = reference(audio)
    for form in (onnx, network):
        assert np.abs(alone(form, cut_windows(audio)) - expected).max() < FORMS_APART


def test_both_networks_agree_over_ten_minutes(onnx: OnnxDetector, network: TorchDetector) -> None:
    windows = cut_windows(assemble_audio(600))
    one, other = alone(onnx, windows), alone(network, windows)
    assert 0.2 < (one > 0.5).mean() < 0.9
    assert np.abs(one - other).max() < FORMS_APART
    assert spans(one) == spans(other)


def test_a_stream_is_not_changed_by_those_beside_it(detector: SpeechDetector, windows: Windows) -> None:
    lengths = [1, 0, 600, 3, 3, 0, 40, 1, 2, 700, 5]
    places = np.linspace(0, 400, len(lengths)).astype(int)
    streams = [windows[place : place + length] for place, length in zip(places, lengths, strict=True)]
    found, reached = detector.detect(streams, new_states(len(streams)))
    assert [len(one) for one in found] == lengths
    for stream, own, state in zip(streams, found, reached, strict=True):
        (expected,), (expected_state,) = detector.detect([stream], new_states(1))
        assert own == pytest.approx(expected, abs=ROUNDING)
        assert state == pytest.approx(expected_state, abs=1e-3)  # not bounded by 1, as probabilities are


def test_streams_are_carried_on_from_where_they_stand(detector: SpeechDetector, windows: Windows) -> None:
    pick = np.random.default_rng(0)
    streams = [windows[:900], windows[300:1000], windows[100:101], windows[500:1100]]
    expected = [alone(detector, stream) for stream in streams]
    states, found = new_states(len(streams)), [np.zeros(0, np.float32) for _ in streams]
    while any(len(own) < len(stream) for own, stream in zip(found, streams, strict=True)):
        sizes = pick.choice([0, 1, 1, 1, 2, 7, 90], len(streams))
        rest = [stream[len(own) :][:size] for stream, own, size in zip(streams, found, sizes, strict=True)]
        before = states.copy()
        parts, reached = detector.detect(rest, states)
        assert np.array_equal(states, before), "the given states are the caller's"
        states = reached
        found = [np.concatenate(pair) for pair in zip(found, parts, strict=True)]
    for own, whole in zip(found, expected, strict=True):
        assert own == pytest.approx(whole, abs=ROUNDING)


def test_nothing_gives_nothing(detector: SpeechDetector) -> None:
    found, states = detector.detect([], new_states(0))
    assert (found, states.shape) == ([], (0, *DETECTOR_STATE_SHAPE))
    given = np.ones((2, *DETECTOR_STATE_SHAPE), np.float32)
    found, states = detector.detect([np.zeros((0, 576), np.float32)] * 2, given)
    assert [one.shape for one in found] == [(0,), (0,)]
    assert np.array_equal(states, given)


def test_one_call_goes_on_from_the_state_of_the_other(onnx: OnnxDetector, windows: Windows) -> None:
    (_,), states = onnx.detect([windows[:300]], new_states(1))
    (step,), stepped = onnx._run(windows[300:301], states)
    (part,), (reached,) = onnx.detect([windows[300:301]], states)
    assert step == pytest.approx(part[0], abs=ROUNDING)
    assert stepped[0] == pytest.approx(reached, abs=ROUNDING)
    (after,), _ = onnx.detect([windows[301:400]], stepped)
    assert after == pytest.approx(alone(onnx, windows[:400])[301:], abs=ROUNDING)


@pytest.mark.parametrize(
    ("counts", "steps"),
    [
        ([], 0),
        ([0, 0], 0),
        ([1], 0),
        ([9], 0),  # a recording: on its own
        ([1] * 50, 1),  # a tick: one call for all
        ([2, 1] * 25, 2),
        ([1] * 50 + [30], 1),  # one stream that is behind does not hold up the others
        ([600, 5000], 0),
        ([0, 3, 3, 3, 3, 3], 3),
    ],
)
def test_as_few_calls_as_possible_are_made(counts: list[int], steps: int) -> None:
    assert choose_steps(counts) == steps


def test_a_stream_of_samples_may_be_divided_anywhere(detector: SpeechDetector) -> None:
    audio = assemble_audio(5, seed=3)[:-100]
    expected = alone(detector, cut_windows(audio))
    cuts = np.sort(np.random.default_rng(4).integers(0, len(audio), 30))
    stream = DetectorStream(detector)
    found = [stream.push(part) for part in np.split(audio, cuts)]
    assert np.concatenate([*found, stream.flush()]) == pytest.approx(expected, abs=ROUNDING)
    assert not len(stream.flush())


def test_threads_share_a_detector(onnx: OnnxDetector, windows: Windows) -> None:
    parts = [windows[start : start + 200] for start in range(0, 1000, 50)]
    expected = [alone(onnx, part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda part: alone(onnx, part), parts))
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


FORKS = """
import os, resource, sys
from pathlib import Path
import numpy as np

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.media.messages import WORKER_BYTES

detector, folder = OnnxDetector(), Path(sys.argv[1])
windows = np.load(folder / "windows.npy")
streams, states = [windows, windows[:3], windows[5:7]], np.zeros((3, 2, 128), np.float32)
if sys.argv[2] == "used":
    detector.detect(streams, states)
assert threads() == before, "a thread of the parent is missing in its children"
children = []
for number in range(6):
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_DATA, (WORKER_BYTES, WORKER_BYTES))
        for _ in range(3):
            found, _ = detector.detect(streams, states)
        np.save(folder / f"{number}.npy", np.concatenate(found))
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
assert not {"torch", "silero_vad", "nemo"} & set(sys.modules)
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
"""


@pytest.mark.parametrize("parent", ["fresh", "used"])
def test_forked_processes_share_a_detector_without_torch(
    parent: str, onnx: OnnxDetector, windows: Windows, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp(parent)
    np.save(folder / "windows.npy", windows)
    subprocess.run([sys.executable, "-c", FORKS, str(folder), parent], check=True, timeout=120)
    expected = np.concatenate(onnx.detect([windows, windows[:3], windows[5:7]], new_states(3))[0])
    for number in range(6):
        assert np.array_equal(np.load(folder / f"{number}.npy"), expected)


def test_both_networks_have_the_same_weights() -> None:
    """The package's safetensors file has others, of another release."""
    import onnx as onnx_format
    from onnx import numpy_helper

    graph = onnx_format.load(silero_onnx.silero_file("silero_vad_16k_sequence.onnx")).graph
    weights = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    own = silero_torch.read_weights()
    assert np.array_equal(own["stft.weight"], weights["stft.forward_basis_buffer"])
    for layer in range(len(silero_torch.LAYERS)):
        assert np.array_equal(own[f"encoder.{2 * layer}.weight"], weights[f"encoder.{layer}.weight"])
    assert np.array_equal(own["output.weight"], weights["output.weight"][..., 0])


def test_tf32_is_off_while_the_network_computes_and_only_then() -> None:
    before = torch.backends.cudnn.allow_tf32
    with silero_torch.without_tf32():
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.enabled
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silero_onnx, "find_spec", lambda name: None)
    with pytest.raises(StartupError, match="silero-vad is not installed"):
        OnnxDetector()
