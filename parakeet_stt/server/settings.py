"""Every setting: its name, type, default, limits, and old names. Nothing else reads the environment."""

from __future__ import annotations

import hashlib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from parakeet_stt.errors import StartupError
from parakeet_stt.text.openai_json import LANGUAGE_NAMES

PREFIX = "STT_"
CORES_A_FRONT = 4  # one front's work is about that of three more cores in media workers and the device process
HASHED = "sha256:"
OPEN_PATHS = {
    "metrics": ("/metrics",),
    "debug": ("/debug/cfg",),
    "docs": ("/docs", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/openapi.json"),
}
OLD_LIVE_THRESHOLD = 0.6
PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16"}
Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _precision(value: object) -> object:
    lower = _lower(value)
    return PRECISIONS.get(lower, lower) if isinstance(lower, str) else lower


def _comma_separated(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def hash_key(key: bytes) -> str:
    """The SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(key).hexdigest()


def _hashes(value: object) -> object:
    """The hashes of the keys in an operator's list."""
    keys = _comma_separated(value)
    return [_hash_of(key) for key in keys] if isinstance(keys, list) else keys


def _hash_of(entry: str) -> str:
    if not entry.startswith(HASHED):
        return hash_key(entry.encode())
    hashed = entry.removeprefix(HASHED).lower()
    if not re.fullmatch("[0-9a-f]{64}", hashed):
        raise ValueError(f"{HASHED} is to be followed by 64 hexadecimal digits")
    return hashed


def _keys_in(file: Path) -> list[str]:
    lines = (line.strip() for line in file.read_text("utf-8").splitlines())
    return [_hash_of(line) for line in lines if line and not line.startswith("#")]


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
    diarizer: str | None = Field(
        default=None,
        validation_alias=_names("DIARIZER"),
        description="Tells speakers apart: a catalogue name (sortformer-tiny, "
        "nvidia/diar_streaming_sortformer_4spk-v2), a path to a .nemo file, or a BentoML store tag. Unset: none.",
    )
    languages: Annotated[list[str], NoDecode, BeforeValidator(_comma_separated)] = Field(
        default=[],
        validation_alias=_names("LANGUAGES"),
        description="Comma-separated languages of a model that is not in the catalogue, in ISO 639-1. Unset: those of "
        "Parakeet v3 if the file has its pieces, else English.",
    )
    model_aliases: Annotated[list[str], NoDecode, BeforeValidator(_comma_separated)] = Field(
        default=[],
        validation_alias=_names("MODEL_ALIASES"),
        description="Comma-separated further names of the model that requests may say, besides OpenAI's: "
        "Systran/faster-whisper-small,whisper-large-v3-turbo, for example.",
    )
    device: Annotated[str, BeforeValidator(_lower)] = Field(
        default="auto",
        validation_alias=_names("DEVICE", "DEVICE"),
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:N. auto takes the first GPU, or the CPU where there is none.",
    )
    precision: Annotated[Precision, BeforeValidator(_precision)] = Field(
        default="auto",
        validation_alias=_names("PRECISION", "MODEL_PRECISION"),
        description="auto, float32 (fp32), bfloat16 (bf16), float16 (fp16), or on a CPU int8. auto is bfloat16 on a "
        "GPU; on a CPU it is float32, or bfloat16 if the processor was measured to be faster with it; never int8.",
    )
    max_batch: int = Field(
        default=128,
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
    encoder: Annotated[Literal["graphs", "eager"], BeforeValidator(_lower)] = Field(
        default="graphs",
        validation_alias=_names("ENCODER"),
        description="On a GPU: graphs replays the encoder of a small batch as one CUDA graph; eager does not.",
    )
    devices: int = Field(
        default=1,
        ge=1,
        le=64,
        validation_alias=_names("DEVICES", "STT_WORKERS"),
        description="Device processes, each with a model of its own: one for each GPU of this machine.",
    )
    fronts: int = Field(
        default=0,
        ge=0,
        le=64,
        validation_alias=_names("FRONTS"),
        description="Front processes, which answer HTTP and sockets. 0: one for every four cores, at least one.",
    )
    max_utterance_seconds: float = Field(
        default=24.0,
        ge=5,
        le=60,
        validation_alias=_names("MAX_UTTERANCE_SECONDS"),
        description="Longer audio is cut at pauses into utterances of at most this length. Unset: 10 for Parakeet v3, "
        "else 24.",
    )
    max_audio_seconds: float = Field(
        default=43200.0,
        gt=0,
        validation_alias=_names("MAX_AUDIO_SECONDS", "MAX_AUDIO_DURATION"),
        description="Longest recording that is accepted, counted while it is decoded.",
    )
    max_upload_bytes: int = Field(
        default=4 << 30,
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
    unknown_fields: Annotated[Literal["refuse", "ignore"], BeforeValidator(_lower)] = Field(
        default="refuse",
        validation_alias=_names("UNKNOWN_FIELDS"),
        description="What becomes of form fields that are not known: refuse, with a 400 that names the field, or "
        "ignore, with a warning in the log.",
    )
    request_timeout_seconds: float = Field(
        default=600.0,
        gt=0,
        validation_alias=_names("REQUEST_TIMEOUT_SECONDS", "PROCESSING_TIMEOUT"),
        description="A request that gets no further for so long is given up: 408 while it is uploaded, then 503.",
    )
    sample_rate: int = Field(
        default=16000,
        ge=16000,
        le=16000,
        validation_alias=_names("SAMPLE_RATE", "TARGET_SR"),
        description="Sample rate of the model, in Hz. Uploads may have any rate; this can only be 16000.",
    )
    api_keys: Annotated[list[str], NoDecode, BeforeValidator(_hashes)] = Field(
        default=[],
        validation_alias=_names("API_KEYS"),
        description="Comma-separated bearer keys, each as it is or as sha256: and its hexadecimal SHA-256. Unset, with "
        "no file of keys either: no key is asked for.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        validation_alias=_names("API_KEYS_FILE"),
        description="A file with more keys, one a line, in either form; lines that begin with # are comments.",
    )
    open_to_all: Annotated[list[Literal["metrics", "debug", "docs"]], NoDecode, BeforeValidator(_comma_separated)] = (
        Field(
            default=[],
            validation_alias=_names("OPEN_TO_ALL"),
            description="Comma-separated: what needs no key even where keys are set. metrics, debug, docs.",
        )
    )
    cors_origins: Annotated[list[str], NoDecode, BeforeValidator(_comma_separated)] = Field(
        default=[],
        validation_alias=_names("CORS_ORIGINS"),
        description="Comma-separated origins whose web pages may call this service; * for all. Unset: none.",
    )
    allowed_hosts: Annotated[list[str], NoDecode, BeforeValidator(_comma_separated), BeforeValidator(_lower)] = Field(
        default=[],
        validation_alias=_names("ALLOWED_HOSTS"),
        description="Comma-separated names that requests may call this service by where no keys are set, with a dot "
        "before for all that end so, or * for any. localhost, addresses, this machine's name, and names without a dot "
        "or for private use (.local, .internal, .svc) are always allowed.",
    )
    page: bool = Field(
        default=True,
        validation_alias=_names("PAGE"),
        description="Whether `/` answers with the page for people, which loads without a key and calls with one.",
    )
    max_sessions: int = Field(
        default=256,
        ge=1,
        validation_alias=_names("MAX_SESSIONS"),
        description="Live sessions at a time, on each device; above it, 429. scripts/bench/streaming.py finds how "
        "many a device follows in time.",
    )
    session_idle_seconds: float = Field(
        default=300.0,
        gt=0,
        validation_alias=_names("SESSION_IDLE_SECONDS"),
        description="A live session from which nothing comes for so long is closed, with code 4408.",
    )
    live_context_seconds: float = Field(
        default=5.0,
        ge=1,
        le=10,
        validation_alias=_names("LIVE_CONTEXT_SECONDS"),
        description="How much of an utterance's audio before a new chunk is decoded again with it. Less makes live "
        "speech cheaper, and its finals faster on a CPU; see docs/live.md.",
    )
    drain_seconds: float = Field(
        default=30.0,
        gt=0,
        validation_alias=_names("DRAIN_SECONDS"),
        description="How long the service goes on with requests and live sessions once shutdown has begun; what is "
        "not finished then ends with 503. And how long a live session whose client has ended it or disconnected waits "
        "for each answer of the device before it gives up its last finals.",
    )
    signing_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        validation_alias=_names("SIGNING_KEY"),
        description="Signs the short-lived keys of /v1/realtime/client_secrets. Unset: random at each start; to be set "
        "where several replicas answer.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info",
        validation_alias=_names("LOG_LEVEL", "LOG_LEVEL"),
        description="debug, info, warning or error.",
    )

    @property
    def fronts_here(self) -> int:
        """Number of front processes on this machine."""
        return self.fronts or max(1, (os.cpu_count() or 1) // CORES_A_FRONT)

    @cached_property
    def key_hashes(self) -> frozenset[str]:
        """The SHA-256 of every key; the keys themselves are not kept."""
        return frozenset(self.api_keys) | frozenset(_keys_in(self.api_keys_file) if self.api_keys_file else ())

    @property
    def live_threshold(self) -> float:
        """Threshold of `/ws` unless a client names one: as the operator sets it, or the old wrapper's."""
        return self.vad_threshold if "vad_threshold" in self.model_fields_set else OLD_LIVE_THRESHOLD

    def longest_utterance_seconds(self, of_model: float | None) -> float:
        """The setting if it is set; or else the model's own, if it has one."""
        if of_model is None or "max_utterance_seconds" in self.model_fields_set:
            return self.max_utterance_seconds
        return of_model

    @cached_property
    def open_paths(self) -> frozenset[str]:
        """The paths that need no key because the operator says so."""
        return frozenset(path for name in self.open_to_all for path in OPEN_PATHS[name])

    @field_validator("languages")
    @classmethod
    def _are_known(cls, languages: list[str]) -> list[str]:
        for language in languages:
            if language not in LANGUAGE_NAMES:
                raise ValueError(f"{language!r} is not one of {', '.join(LANGUAGE_NAMES)}")
        return languages

    @field_validator("api_keys_file")
    @classmethod
    def _is_readable(cls, file: Path | None) -> Path | None:
        try:
            _keys_in(file) if file else None
        except OSError as exc:
            raise ValueError(f"can't be read: {exc}") from exc
        return file


def load() -> Settings:
    """The settings in force.

    Raises StartupError, in one line, naming each setting that is wrong and what is wrong with it.
    """
    try:
        return Settings()
    except ValidationError as exc:
        problems = [f"{_all_names(str(error['loc'][0]))}: {error['msg']}" for error in exc.errors(include_input=False)]
        raise StartupError("Wrong settings. " + "; ".join(problems)) from exc


def has_page() -> bool:
    """Whether the page is served; True if the settings are wrong, which the start itself reports."""
    try:
        return load().page
    except StartupError:
        return True


def front_count() -> int:
    """Number of front processes; 1 if the settings are wrong, which the start itself reports."""
    try:
        return load().fronts_here
    except StartupError:
        return 1


def _all_names(name: str) -> str:
    """A setting with its old names, one of which the operator may have set."""
    for field in Settings.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices) and name in field.validation_alias.choices:
            return " or ".join(dict.fromkeys(map(str, field.validation_alias.choices)))
    return name


def env_example() -> str:
    """The text of `.env.example`: every setting with its meaning, default and old names."""
    lines = ["# Made from parakeet_stt/server/settings.py by `make env-example`. Every setting is optional."]
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


def settings_table() -> str:
    """Every setting as a Markdown table, for docs/operations.md."""
    lines = ["| setting | unless set | meaning | also read from |", "|---|---|---|---|"]
    for field in Settings.model_fields.values():
        aliases = field.validation_alias
        assert isinstance(aliases, AliasChoices)
        name, *old = (f"`{choice}`" for choice in aliases.choices)
        default = "" if field.default in (None, []) else f"`{field.default}`"
        lines.append(f"| {name} | {default} | {field.description} | {', '.join(old)} |")
    return "\n".join(lines) + "\n"
