"""What the events of a session mean: words to print as they come, captions with their times at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from parakeet_stt.text.formats import write_srt
from parakeet_stt.text.transcript import Segment, Transcript, Word, WordList

TRANSCRIPTION = "conversation.item.input_audio_transcription"


@dataclass(slots=True)
class Caption:
    """An utterance. Times in seconds of the session. text: of the deltas, then the final. is_final: all is known."""

    start: float = 0.0
    end: float = 0.0
    text: str = ""
    is_final: bool = False


class Captions:
    """All utterances of a session, in order, over all of its connections."""

    def __init__(self) -> None:
        self._began = 0.0  # of this connection's sound, in seconds of the session
        self._is_broken = False  # whether a line is printed that will not be ended by its words
        self._captions: dict[str, Caption] = {}  # by item
        self._order: list[str] = []  # items that are not printed to their end
        self._printed = 0  # characters of the first of them
        self._described = 0  # captions that `new_finals` has given

    @property
    def is_complete(self) -> bool:
        """Whether every utterance that has begun is final."""
        return all(caption.is_final for caption in self._captions.values())

    @property
    def settled_seconds(self) -> float:
        """The end of the last utterance before which all are final."""
        return max((caption.end for caption in self._settled()), default=0.0)

    @property
    def finals(self) -> list[Caption]:
        """Those with words that are final."""
        return [caption for caption in self._captions.values() if caption.is_final and caption.text]

    def restart(self, seconds: float) -> None:
        """Another connection has begun, with the sound from `seconds` on: what was not settled comes again."""
        settled = list(self._settled())
        self._captions = dict(zip(self._captions, settled, strict=False))
        self._order = [item for item in self._order if item in self._captions]
        self._is_broken = self._is_broken or self._printed > 0
        self._printed = 0
        self._began = seconds

    def receive(self, event: Mapping[str, Any]) -> None:
        """Note what an event says."""
        item = event.get("item_id")
        if not isinstance(item, str):
            return
        match event["type"].replace(TRANSCRIPTION, "transcription"):
            case "input_audio_buffer.speech_started":
                self._of(item).start = round(self._began + event["audio_start_ms"] / 1000, 3)
            case "input_audio_buffer.speech_stopped":
                self._of(item).end = round(self._began + event["audio_end_ms"] / 1000, 3)
            case "input_audio_buffer.committed":
                self._of(item)
            case "transcription.delta":
                self._of(item).text += event.get("delta") or ""
            case "transcription.completed":
                self._of(item).text = event.get("transcript") or ""
                self._of(item).is_final = True
            case "transcription.failed":
                self._of(item).is_final = True

    def new_text(self) -> Iterator[str]:
        """What is to be printed since the last call: words of one utterance at a time, each on a line of its own."""
        if self._is_broken:
            self._is_broken = False
            yield "\n"
        while self._order:
            caption = self._captions[self._order[0]]
            if new := caption.text[self._printed :]:
                yield new
            self._printed = max(self._printed, len(caption.text))
            if not caption.is_final:
                return
            if caption.text:
                yield "\n"
            self._order.pop(0)
            self._printed = 0

    def new_finals(self) -> Iterator[Caption]:
        """Those that have become final since the last call, in order, but those without words."""
        for caption in list(self._captions.values())[self._described :]:
            if not caption.is_final:
                return
            self._described += 1
            if caption.text:
                yield caption

    def _settled(self) -> Iterator[Caption]:
        return takewhile(lambda caption: caption.is_final, self._captions.values())

    def _of(self, item: str) -> Caption:
        if item not in self._captions:
            self._order.append(item)
        return self._captions.setdefault(item, Caption())


def render_srt(captions: Captions) -> str:
    """SubRip, one cue for each utterance with words."""
    segments = [Segment((Word(one.text, one.start, one.end, ()),)) for one in captions.finals]
    duration = max((one.end for one in captions.finals), default=0.0)
    return write_srt(Transcript(WordList(), segments, duration, "en"))
