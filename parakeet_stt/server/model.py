"""The served model, as callers may see it."""

from __future__ import annotations

from dataclasses import dataclass

from parakeet_stt.server.digests import Digests


@dataclass(frozen=True, slots=True)
class ServedModel:
    """created: unix time of its publication. config: the active configuration as YAML. aliases: other names of it.

    letters: that the model can write; empty if that is not known. tells_speakers: whether it has a diarizer beside it.
    """

    name: str
    languages: tuple[str, ...]
    owned_by: str
    created: int
    is_demo: bool
    device: str
    precision: str
    precision_reason: str
    config: str
    digests: Digests
    aliases: frozenset[str] = frozenset()
    letters: frozenset[str] = frozenset()
    tells_speakers: bool = False
