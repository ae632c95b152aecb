"""The same results, faster."""

from __future__ import annotations

import copy
import ctypes
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from nemo.collections.asr.parts.submodules.multi_head_attention import RelPositionMultiHeadAttention
from torch import nn

from parakeet_stt.engines import devices
from parakeet_stt.engines.cpu import attention, int8, int8_layer, memory, packing, precision, subsampling
from parakeet_stt.errors import StartupError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layers_compute_what_the_plain_ones_do(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 40, bias=False)).to(dtype).eval()
    convolutions = nn.Sequential(nn.Conv1d(40, 24, 1), nn.Conv1d(24, 24, 3, groups=24)).to(dtype).eval()
    sound, features = torch.randn(3, 17, 40, dtype=dtype), torch.randn(3, 40, 17, dtype=dtype)
    with torch.inference_mode():
        expected = plain(sound), convolutions(features)
        packing.pack(plain)
        packing.pack(convolutions)
        found = plain(sound), convolutions(features)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=tolerance, rtol=tolerance)
    # A network of a type that the processor has no instructions for stays as it is.
    packs = packing.can_pack(dtype)
    assert any(type(layer) is nn.Linear for layer in plain) is not packs
    assert [type(layer) is nn.Conv1d for layer in convolutions] == [not packs, True]  # one of width three stays


def test_attention_is_steady_whatever_a_checkpoint_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = RelPositionMultiHeadAttention(2, 16, 0.0, None, None, use_pytorch_sdpa=True).eval()
    sound, positions = torch.randn(2, 9, 16), torch.randn(1, 17, 16)
    mask = (torch.arange(9) >= 5).expand(2, 9, 9)
    asked: list[torch.Tensor] = []
    weigh = attention.weigh

    def note(scores: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        asked.append(scores)
        return weigh(scores, values)

    monkeypatch.setattr(attention, "weigh", note)
    with torch.inference_mode():
        expected = layer(sound, sound, sound, mask, positions)
        attention.use_steady_attention(nn.ModuleList([layer]))
        found = layer(sound, sound, sound, mask, positions)
    assert len(asked) == 1
    assert torch.allclose(found[:, :5], expected[:, :5], atol=1e-5)


@pytest.mark.parametrize("is_quantized", [False, True])
def test_an_lstm_in_steps_is_the_lstm(is_quantized: bool) -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(12, 16, num_layers=2).eval()
    stepped: nn.Module = int8.QuantizedLSTM(lstm) if is_quantized else packing.SteppedLSTM(lstm)
    tolerance = 0.02 if is_quantized else 1e-6
    sound = torch.randn(5, 3, 12)
    with torch.inference_mode():
        whole, (hidden, cells) = lstm(sound)
        sound = int8.QuantizedLSTM.gates_of(sound, lstm) if is_quantized else sound
        output, state = stepped(sound[:1], None)
        outputs = [output]
        for step in range(1, 5):
            output, state = stepped(sound[step : step + 1], state)
            outputs.append(output)
        at_once, last = stepped(sound, None)
        alone, _ = stepped(sound[:, :1], None)
    assert torch.allclose(torch.cat(outputs), whole, atol=tolerance)
    assert torch.allclose(at_once, whole, atol=tolerance)
    assert torch.allclose(alone, at_once[:, :1], atol=1e-6)  # what else is in a batch changes nothing
    for found in (state, last):
        assert torch.allclose(found[0], hidden, atol=tolerance)
        assert torch.allclose(found[1], cells, atol=tolerance)


def test_quantized_layers_compute_nearly_what_the_plain_ones_do() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 64, bias=False)).eval()
    convolutions = nn.Sequential(nn.Conv1d(256, 128, 1), nn.Conv1d(128, 128, 3, groups=128)).eval()
    images = nn.Sequential(nn.Conv2d(256, 64, 1)).eval()
    sound, features, image = torch.randn(3, 17, 256), torch.randn(3, 256, 17), torch.randn(2, 256, 5, 7)
    sound[1] *= 100  # a loud item takes nothing from the quiet ones
    with torch.inference_mode():
        expected = plain(sound), convolutions(features), images(image)
        for network in (plain, convolutions, images):
            int8.quantize(network)
        found = plain(sound), convolutions(features), images(image)
        alone = plain(sound[:1])
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        for own, exact in zip(one, other, strict=True):
            assert (own - exact).square().mean() < 0.03**2 * exact.square().mean()
    assert torch.equal(alone, found[0][:1])  # what else is in a batch changes nothing
    assert not any(type(layer) is nn.Linear for layer in plain)
    assert type(convolutions[1]) is nn.Conv1d  # one of width three stays


class _Exact(nn.Module):
    """A linear layer in place of a quantized one."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self._weight, self._bias = weight, bias

    def forward(self, x: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        found = nn.functional.linear(x, self._weight, self._bias)
        return found if onto is None else found + onto


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_layer_for_int8_is_nemos_layer(monkeypatch: pytest.MonkeyPatch, has_bias: bool) -> None:
    """With exact products, what is between them is the same arithmetic; with quantized ones, nearly the same."""
    encoder = _make_encoder(has_bias)
    sound = torch.randn(2, 16, 160), torch.tensor([160, 90])
    short = sound[0][:1, :, :100], torch.tensor([100])  # its positions are those in the middle of the longer audio's
    with torch.inference_mode():
        expected, frames = encoder.forward_internal(*sound)
        expected_short, _ = encoder.forward_internal(*short)
        exact = copy.deepcopy(encoder)
        with monkeypatch.context() as patch:
            for module in (int8, int8_layer):
                patch.setattr(module, "QuantizedLinear", _Exact)
            int8_layer.quantize_encoder(exact)
        found, found_frames = exact.forward_internal(*sound)
        found_short, _ = exact.forward_internal(*short)
        int8_layer.quantize_encoder(encoder)
        rounded, _ = encoder.forward_internal(*sound)
    assert all(isinstance(layer, int8_layer.QuantizedLayer) for layer in encoder.layers)
    assert found_frames.tolist() == frames.tolist()
    for item, count in enumerate(frames.tolist()):  # beyond its frames an item's output means nothing
        spread = expected[item, :, :count].square().mean()
        assert (found[item, :, :count] - expected[item, :, :count]).square().mean() < 1e-10 * spread
        assert (rounded[item, :, :count] - expected[item, :, :count]).square().mean() < 0.06**2 * spread
    assert (found_short - expected_short).square().mean() < 1e-10 * expected_short.square().mean()


def test_convolutions_before_the_layers_are_nemos() -> None:
    """Whatever the features beyond an item's end are; and the features stay as they were."""
    plain = _make_encoder(True).pre_encode
    ours = copy.deepcopy(plain)
    for network in (plain, ours):
        packing.pack(network)
    subsampling.replace_subsampling(ours)
    assert isinstance(ours.conv, subsampling.Subsampling)
    features = torch.randn(3, 165, 16)
    before, lengths = features.clone(), torch.tensor([165, 92, 1])
    with torch.inference_mode():
        expected, frames = plain(features, lengths)
        found, found_frames = ours(features, lengths)
    assert torch.allclose(found, expected, atol=1e-6, rtol=1e-6)
    assert found_frames.tolist() == frames.tolist()
    assert torch.equal(features, before)


def _make_encoder(has_bias: bool) -> Any:
    from nemo.collections.asr.modules import ConformerEncoder

    torch.manual_seed(0)
    encoder = ConformerEncoder(
        feat_in=16, n_layers=2, d_model=64, n_heads=4, subsampling="dw_striding", subsampling_conv_channels=8,
        subsampling_factor=8, ff_expansion_factor=4, conv_kernel_size=9, use_bias=has_bias, xscaling=False,
    ).eval()  # fmt: skip
    for name, tensor in encoder.state_dict().items():
        if "batch_norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0)
        if "pos_bias" in name:
            tensor.normal_()
    return encoder


def test_products_of_the_largest_codes_are_exact() -> None:
    """Without VNNI's instructions oneDNN's sums of pairs saturate, and all loud frames were wrong by a tenth."""
    with torch.inference_mode():
        layer = int8.QuantizedLinear(torch.ones(8, 64), None)
        inputs = torch.ones(5, 64)
        inputs[:, 0] = 0  # the lowest
        assert torch.allclose(layer(inputs), torch.full((5, 8), 63.0), rtol=1e-5)
        assert torch.allclose(layer(inputs - 3), torch.full((5, 8), 63.0 - 3 * 64), rtol=1e-5)
        assert torch.allclose(layer(torch.full((5, 64), 2.0)), torch.full((5, 8), 128.0), rtol=1e-5)  # all the same


@pytest.mark.parametrize("rows", [125, 500])
def test_a_product_in_int8_takes_less_than_in_float32(rows: int) -> None:
    """With VNNI's instructions oneDNN brought the weights into another order at each call: 205 ms for 3."""
    inputs, outputs = 1024, 4096
    plain, x = nn.Linear(inputs, outputs), torch.rand(rows, inputs)
    layer = int8.QuantizedLinear(plain.weight.detach(), plain.bias.detach())
    with torch.inference_mode():
        in_int8, in_float32 = (min(_processor_seconds(one, x) for _ in range(5)) for one in (layer, plain))
    assert in_int8 < in_float32


def _processor_seconds(layer: nn.Module, x: torch.Tensor) -> float:
    began = time.process_time()
    layer(x)
    return time.process_time() - began


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a machine's measurement is kept, on a processor that has bfloat16."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(precision, "can_pack", lambda dtype: True)
    return tmp_path


def test_the_type_of_the_weights_is_measured_for_a_large_network_only(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    host, gpu = torch.device("cpu"), torch.device("cuda", 0)
    monkeypatch.setattr(precision, "measure_gain", lambda: 2.0)
    assert devices.weight_type("auto", host, precision.LARGE - 1).dtype == torch.float32
    assert not list(cache.iterdir())
    assert devices.weight_type("auto", host, precision.LARGE).dtype == torch.bfloat16
    assert devices.weight_type("auto", gpu, 1).dtype == torch.bfloat16
    assert devices.weight_type("float16", gpu, 1).dtype == torch.float16
    assert devices.weight_type("int8", host, 1).dtype == torch.float32  # of what is not quantized
    with pytest.raises(StartupError, match="STT_PRECISION=int8 is for a CPU"):
        devices.weight_type("int8", gpu, 1)


def test_a_machine_chooses_the_same_at_every_start(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """The choice was measured at each start, and changed with what else the machine did meanwhile: so did the texts."""
    gains = iter([1.25, 1.4, 2.0])
    monkeypatch.setattr(precision, "measure_gain", lambda: next(gains))
    assert {precision.choose(precision.LARGE).dtype for _ in range(10)} == {torch.float32}
    monkeypatch.setattr(precision, "processor_name", lambda: "another processor")
    assert {precision.choose(precision.LARGE).dtype for _ in range(10)} == {torch.bfloat16}
    next(cache.rglob("*.json")).write_text("{")  # damaged: measured again
    choice = precision.choose(precision.LARGE)
    assert choice.dtype == torch.bfloat16
    assert (
        choice.reason
        == "bfloat16 was measured 2.00 times as fast as float32 on another processor; above 1.3 it is used"
    )
    assert next(gains, None) is None


def test_a_choice_that_cannot_be_kept_is_made_all_the_same(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    (cache / "parakeet-stt").write_text("a file where the folder would be")
    monkeypatch.setattr(precision, "measure_gain", lambda: 2.0)
    assert precision.choose(precision.LARGE).dtype == torch.bfloat16


@pytest.mark.skipif(not packing.can_pack(torch.bfloat16), reason="this processor has no bfloat16 to be measured")
def test_the_gain_is_that_of_this_processor() -> None:
    first, again = precision.measure_gain(), precision.measure_gain()
    assert 0.1 < first < 100
    assert again == pytest.approx(first, rel=0.25)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    """Each page of each result was a fault of its own: a sixth of int8's time at 0.6B."""
    memory.keep_freed_memory()
    faults = []
    for _ in range(20):  # aligned blocks move within the heap at first
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(40_000_000, dtype=torch.uint8).fill_(1)  # more than glibc would keep by itself
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert min(faults) < 1000, faults
