"""Knows every setting: its name, type, default, limits, and old names. Reads the environment; nothing else does."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from stt.errors import StartupError

PREFIX = "STT_"
PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16"}


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _precision(value: object) -> object:
    lower = _lower(value)
    return PRECISIONS.get(lower, lower) if isinstance(lower, str) else lower


def _comma_separated(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _names(name: str, *old: str) -> AliasChoices:
    """The setting's own name first, then those of the original wrapper."""
    return AliasChoices(PREFIX + name, *old)


class Settings(BaseSettings):
    """All settings, from the environment or a file `.env`.

    Each field's first alias is its name; further ones are those of the old wrapper.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, env_file=".env")

    model: str | None = Field(
        default=None,
        validation_alias=_names("MODEL"),
        description="A catalogue name (nvidia/parakeet-tdt-0.6b-v2), a path to a .nemo file, or a BentoML store tag. "
        "Unset: the bundled tiny model, for demonstrations and tests only.",
    )
    device: Annotated[str, BeforeValidator(_lower)] = Field(
        default="auto",
        validation_alias=_names("DEVICE", "DEVICE"),
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:N. auto takes the first GPU, or the CPU where there is none.",
    )
    precision: Annotated[Literal["auto", "float32", "bfloat16", "float16"], BeforeValidator(_precision)] = Field(
        default="auto",
        validation_alias=_names("PRECISION", "MODEL_PRECISION"),
        description="auto, float32 (fp32), bfloat16 (bf16) or float16 (fp16). auto is bfloat16 on a GPU, float32 on a "
        "CPU.",
    )
    max_batch: int = Field(
        default=64,
        ge=1,
        le=1024,
        validation_alias=_names("MAX_BATCH", "BATCH_SIZE"),
        description="Utterances decoded together, at most.",
    )
    batch_seconds: float | None = Field(
        default=None,
        gt=0,
        validation_alias=_names("BATCH_SECONDS"),
        description="Seconds of audio decoded together, at most, the padding included. Unset: measured at start.",
    )
    max_queue_seconds: float | None = Field(
        default=None,
        gt=0,
        validation_alias=_names("MAX_QUEUE_SECONDS"),
        description="Seconds of audio that may wait; above it, requests are answered with 429. Unset: what the device "
        "does in a minute, or half an hour if that is more.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        validation_alias=_names("THREADS"),
        description="Threads of the recognizer on a CPU. 0: one fewer than there are cores.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        validation_alias=_names("WORKERS"),
        description="Processes, each with a model of its own: one for each GPU of this machine.",
    )
    max_utterance_seconds: float = Field(
        default=24.0,
        ge=5,
        le=60,
        validation_alias=_names("MAX_UTTERANCE_SECONDS"),
        description="Longer audio is cut at pauses into utterances of at most this length.",
    )
    max_audio_seconds: float = Field(
        default=7200.0,
        gt=0,
        validation_alias=_names("MAX_AUDIO_SECONDS", "MAX_AUDIO_DURATION"),
        description="Longest recording that is accepted, counted while it is decoded.",
    )
    max_upload_bytes: int = Field(
        default=1 << 30,
        ge=1024,
        validation_alias=_names("MAX_UPLOAD_BYTES"),
        description="Largest request body that is accepted.",
    )
    vad_threshold: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        validation_alias=_names("VAD_THRESHOLD", "VAD_THRESHOLD"),
        description="Speech probability from which sound counts as speech. Audio without speech gives no text.",
    )
    request_timeout_seconds: float = Field(
        default=600.0,
        gt=0,
        le=800,  # BentoML's own limit, 900 s with the upload, answers outside the envelope
        validation_alias=_names("REQUEST_TIMEOUT_SECONDS", "PROCESSING_TIMEOUT"),
        description="A request that takes longer is given up and answered with 503.",
    )
    sample_rate: int = Field(
        default=16000,
        ge=16000,
        le=16000,
        validation_alias=_names("SAMPLE_RATE", "TARGET_SR"),
        description="The rate that the model hears. Uploads may have any rate; this can only be 16000.",
    )
    api_keys: Annotated[list[SecretStr], NoDecode, BeforeValidator(_comma_separated)] = Field(
        default=[],
        validation_alias=_names("API_KEYS"),
        description="Comma-separated bearer keys. Unset: no key is asked for.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info",
        validation_alias=_names("LOG_LEVEL", "LOG_LEVEL"),
        description="debug, info, warning or error.",
    )


def load() -> Settings:
    """The settings in force.

    Raises StartupError, in one line, naming each setting that is wrong and what is wrong with it.
    """
    try:
        return Settings()
    except ValidationError as exc:
        problems = [f"{_spelled(str(error['loc'][0]))}: {error['msg']}" for error in exc.errors(include_input=False)]
        raise StartupError("Wrong settings. " + "; ".join(problems)) from exc


def worker_count() -> int:
    """How many processes serve; 1 where the settings are wrong, which is told elsewhere."""
    try:
        return load().workers
    except StartupError:
        return 1


def _spelled(name: str) -> str:
    """A setting with its old names, one of which the operator may have set."""
    for field in Settings.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices) and name in field.validation_alias.choices:
            return " or ".join(dict.fromkeys(map(str, field.validation_alias.choices)))
    return name


def env_example() -> str:
    """The text of `.env.example`: every setting with its meaning, default and old names."""
    lines = ["# Made from stt/server/settings.py by `make env-example`. Every setting is optional."]
    for field in Settings.model_fields.values():
        aliases = field.validation_alias
        assert isinstance(aliases, AliasChoices)
        name, *old = map(str, aliases.choices)
        lines += ["", f"# {field.description}"]
        if old:
            lines.append(f"# Also read from {', '.join(old)}.")
        default = "" if field.default in (None, []) else field.default
        lines.append(f"# {name}={default}")
    return "\n".join(lines) + "\n"
