"""Settings: names old and new, limits, and the example file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from parakeet_stt.errors import StartupError
from parakeet_stt.server.settings import Settings, env_example, front_count, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no .env
    for field in Settings.model_fields.values():
        for alias in getattr(field.validation_alias, "choices", ()):
            monkeypatch.delenv(str(alias), raising=False)


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("STT_MODEL", "nvidia/parakeet-tdt-0.6b-v2", "model", "nvidia/parakeet-tdt-0.6b-v2"),
        ("DEVICE", "CPU", "device", "cpu"),
        ("STT_DEVICE", "cuda:1", "device", "cuda:1"),
        ("MODEL_PRECISION", "fp16", "precision", "float16"),
        ("STT_PRECISION", "BF16", "precision", "bfloat16"),
        ("BATCH_SIZE", "4", "max_batch", 4),
        ("TARGET_SR", "16000", "sample_rate", 16000),
        ("MAX_AUDIO_DURATION", "30", "max_audio_seconds", 30.0),
        ("VAD_THRESHOLD", "0.6", "vad_threshold", 0.6),
        ("PROCESSING_TIMEOUT", "60", "request_timeout_seconds", 60.0),
        ("LOG_LEVEL", "INFO", "log_level", "info"),
        ("STT_DEVICES", "2", "devices", 2),
        ("STT_WORKERS", "3", "devices", 3),  # until version 0.3
        ("STT_FRONTS", "4", "fronts_here", 4),
        ("STT_MODEL", "", "model", None),
    ],
)
def test_a_setting_is_read_by_its_name_and_by_the_old_wrappers(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, expected: object
) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(load(), field) == expected


def test_the_new_name_wins_over_the_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_DEVICE", "cpu")
    monkeypatch.setenv("DEVICE", "cuda")
    assert load().device == "cpu"


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 1), (8, 2), (22, 5)])
def test_there_is_a_front_for_every_four_cores_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch, cores: int, count: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert (load().fronts_here, front_count()) == (count, count)
    monkeypatch.setenv("STT_FRONTS", "3")
    assert (load().fronts_here, front_count()) == (3, 3)


def test_a_model_has_its_own_longest_utterance_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().longest_utterance_seconds(10) == 10
    assert load().longest_utterance_seconds(None) == 24
    monkeypatch.setenv("STT_MAX_UTTERANCE_SECONDS", "16")
    assert load().longest_utterance_seconds(10) == 16


def test_wrong_settings_are_reported_by_the_start_and_not_by_the_number_of_fronts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """BentoML asks for the number while it imports the service, where an error would be a traceback."""
    monkeypatch.setenv("STT_FRONTS", "many")
    assert front_count() == 1
    with pytest.raises(StartupError, match="STT_FRONTS"):
        load()


def test_of_api_keys_only_the_hashes_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\nthird-key\n\nsha256:{hashlib.sha256(b'fourth').hexdigest()}\n")
    monkeypatch.setenv("STT_API_KEYS", "one-key, another")
    monkeypatch.setenv("STT_API_KEYS_FILE", str(file))
    settings = load()
    keys = (b"one-key", b"another", b"third-key", b"fourth")
    assert settings.key_hashes == {hashlib.sha256(key).hexdigest() for key in keys}
    assert "one-key" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STT_DEVICE", "tpu"), ("STT_PRECISION", "int3"), ("BATCH_SIZE", "0"), ("TARGET_SR", "8000"),
        ("STT_VAD_THRESHOLD", "1.5"), ("STT_MAX_UTTERANCE_SECONDS", "600"), ("LOG_LEVEL", "loud"),
        ("STT_API_KEYS", "sha256:1234"), ("STT_API_KEYS_FILE", "/nowhere"), ("STT_OPEN_TO_ALL", "everything"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError) as refusal:
        load()
    assert "\n" not in refusal.value.message
    assert name in refusal.value.message


def test_the_example_file_is_the_settings() -> None:
    assert (ROOT / ".env.example").read_text() == env_example()
    assert "# STT_MODEL=" in env_example()


def test_a_file_named_env_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("STT_MAX_BATCH=3\nLOG_LEVEL=error\n")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    assert (load().max_batch, load().log_level) == (3, "debug")
