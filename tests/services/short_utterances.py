"""The service with a model whose catalogue entry has a longest utterance of its own, as Parakeet v3's has."""

from functools import partial

from parakeet_stt.engines import catalogue
from tests.services import preloaded_service

catalogue.ModelSource = partial(catalogue.ModelSource, longest_utterance_seconds=5.0)  # type: ignore[assignment, misc]

ParakeetSTT = preloaded_service.ParakeetSTT
