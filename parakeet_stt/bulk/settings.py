"""What decides a recording's text, on whichever machine it is made: a part of the service's own settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from parakeet_stt.engines import catalogue
from parakeet_stt.engines.catalogue import ModelSource
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.server.settings import Precision, Settings
from parakeet_stt.vad import offset_for


@dataclass(frozen=True, slots=True)
class BulkSettings:
    """The settings of the same names; see `server/settings.py`. Without keys, since it goes to all machines."""

    model: str | None
    languages: tuple[str, ...]
    device: str
    precision: Precision
    threads: int
    encoder: Literal["graphs", "eager"]
    max_batch: int
    batch_seconds: float | None
    max_utterance_seconds: float
    max_audio_seconds: float
    rules: SpeechRules

    @classmethod
    def of(cls, settings: Settings) -> BulkSettings:
        """Those of the service. Raises StartupError if the model is not here."""
        source = catalogue.resolve(settings.model, settings.languages)
        catalogue.check_archive(source.path)
        return cls(
            model=settings.model,
            languages=tuple(settings.languages),
            device=settings.device,
            precision=settings.precision,
            threads=settings.threads,
            encoder=settings.encoder,
            max_batch=settings.max_batch,
            batch_seconds=settings.batch_seconds,
            max_utterance_seconds=settings.longest_utterance_seconds(source.longest_utterance_seconds),
            max_audio_seconds=settings.max_audio_seconds,
            rules=SpeechRules(onset=settings.vad_threshold, offset=offset_for(settings.vad_threshold)),
        )

    def find_model(self) -> ModelSource:
        """The model's file on this machine. Raises StartupError."""
        return catalogue.resolve(self.model, self.languages)
