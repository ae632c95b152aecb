"""The same results, faster."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parakeet_stt.engines import cpu, devices


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layers_compute_what_the_plain_ones_do(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 40, bias=False)).to(dtype).eval()
    convolutions = nn.Sequential(nn.Conv1d(40, 24, 1), nn.Conv1d(24, 24, 3, groups=24)).to(dtype).eval()
    sound, features = torch.randn(3, 17, 40, dtype=dtype), torch.randn(3, 40, 17, dtype=dtype)
    with torch.inference_mode():
        expected = plain(sound), convolutions(features)
        cpu.pack(plain)
        cpu.pack(convolutions)
        found = plain(sound), convolutions(features)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=tolerance, rtol=tolerance)
    # A network of a type that the processor has no instructions for stays as it is.
    packs = cpu._packs(dtype)
    assert any(type(layer) is nn.Linear for layer in plain) is not packs
    assert [type(layer) is nn.Conv1d for layer in convolutions] == [not packs, True]  # one of width three stays


def test_an_lstm_in_steps_is_the_lstm() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(12, 16, num_layers=2).eval()
    stepped = cpu.SteppedLSTM(lstm)
    sound = torch.randn(5, 3, 12)
    with torch.inference_mode():
        whole, (hidden, cells) = lstm(sound)
        output, state = stepped(sound[:1], None)
        outputs = [output]
        for step in range(1, 5):
            output, state = stepped(sound[step : step + 1], state)
            outputs.append(output)
    assert torch.allclose(torch.cat(outputs), whole, atol=1e-6)
    assert torch.allclose(state[0], hidden, atol=1e-6)
    assert torch.allclose(state[1], cells, atol=1e-6)


def test_the_type_of_the_weights_is_measured_for_a_large_network_only(monkeypatch: pytest.MonkeyPatch) -> None:
    host, gpu = torch.device("cpu"), torch.device("cuda", 0)
    monkeypatch.setattr(cpu, "is_bfloat16_faster", lambda: True)
    assert devices.weight_type("auto", host, cpu.LARGE) == torch.bfloat16
    assert devices.weight_type("auto", host, cpu.LARGE - 1) == torch.float32
    monkeypatch.setattr(cpu, "is_bfloat16_faster", lambda: False)
    assert devices.weight_type("auto", host, cpu.LARGE) == torch.float32
    assert devices.weight_type("auto", gpu, 1) == torch.bfloat16
    assert devices.weight_type("float16", gpu, 1) == torch.float16


def test_what_is_measured_is_a_yes_or_a_no() -> None:
    assert isinstance(cpu.is_bfloat16_faster(), bool)
