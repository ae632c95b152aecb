"""Synthesizes the speech that the tiny model is trained and tested on: vocabulary, grammar, voices, clips.

Needs the Debian packages espeak-ng and flite (`apt-get install espeak-ng flite`), which neither the service nor its
tests need.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import random
import subprocess
import tempfile
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import soxr

SAMPLE_RATE = 16_000
Sample = TypeVar("Sample", np.int16, np.float32)
Engine = Literal["espeak", "flite"]
Kind = Literal["words", "random", "sentences"]
TEST_SEED, TEST_CLIPS = 9_000_000, 400  # first seed of the test set, and clips of each of its parts


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", " ").split("|"))


# Homophones are left out on purpose (to/two, for/four, see/sea, our/hour, know/no, right/write): in a random sequence
# they can't be distinguished, so they would only add noise to the measured word error rate.
SUBJECT = _phrases(
    """I|you|we|they|he|she|the doctor|the teacher|my brother|your sister|the captain|the engineer|a student|
    the driver|our friend|the manager|the little girl|the old man|everyone|the customer|the pilot|the nurse|
    the farmer|the lawyer|my mother|your father|the young woman|the artist|the police officer|nobody|my neighbor|
    the baker|the singer|the secretary|her daughter|his uncle|a cousin"""
)
PAST = _phrases(
    """opened|closed|found|lost|bought|sold|called|carried|painted|cleaned|watched|counted|dropped|fixed|moved|
    brought|needed|wanted|remembered|forgot|checked|ordered|finished|started|followed|heard|liked|reached|passed|
    pushed|returned|shared|measured|described|protected|borrowed|delivered|repaired|discovered|mentioned"""
)
THING = _phrases(
    """the door|the window|a red car|the blue book|a letter|the green bottle|the big table|a small dog|
    the white horse|the broken chair|a new phone|the yellow box|the old map|the black coat|the music|the report|
    a cup of coffee|a glass of water|the garden|the kitchen light|the computer|the ticket|the heavy bag|
    a silver key|the last train|the first question|the answer|some bread|the money|a photograph|the project|
    the machine|the radio|the paper|the engine|a basket of oranges|the wooden ladder|this message|that picture|
    the brown blanket|a package|the birthday cake|the newspaper|the camera|a sharp knife|the umbrella|
    the purple jacket|the second chapter|a bowl of soup|the garage|a piece of cheese|the elephant|the guitar"""
)
PLACE = _phrases(
    """in the kitchen|at the station|near the river|in the city|on the mountain|at home|behind the school|
    in the office|under the bridge|at the airport|in the hospital|by the ocean|on the street|in the park|
    at the market|next door|in the library|outside the hotel|at the theater|between the houses|inside the museum|
    across the field|beside the fountain|above the restaurant|around the corner|on the island"""
)
MONTHS = _phrases("January|February|March|April|May|June|July|August|September|October|November|December")
DAYS = _phrases("Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday")
TIME = (
    *_phrases(
        """yesterday|this morning|last night|two days ago|before lunch|after dinner|at noon|at midnight|again|
        very quickly|last week|three years ago|every evening|once more|during breakfast|next month|tomorrow|
        without warning|almost always|quite often|together|slowly|carefully"""
    ),
    *(f"on {day}" for day in DAYS),
    *(f"in {month}" for month in MONTHS),
)
ADJECTIVE = _phrases(
    """good|bad|cold|hot|quiet|loud|happy|sad|fast|slow|clean|empty|full|expensive|cheap|beautiful|dark|bright|
    dangerous|simple|difficult|important|early|late|strange|perfect|popular|terrible|wonderful|famous|gentle|
    boring|possible|useful|warm|delicious"""
)
NOUN = _phrases(
    """weather|meeting|room|house|road|game|story|price|plan|food|movie|lesson|ship|village|forest|morning|
    evening|summer|winter|problem|idea|journey|concert|language|kitchen|science|history|business|family|
    building|holiday|shower|battle|country|company|vegetable|breakfast|dream"""
)
DIGIT = _phrases("zero|one|two|three|four|five|six|seven|eight|nine")
NUMBER = (
    *DIGIT,
    *_phrases(
        """ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|
        fifty|sixty|seventy|eighty|ninety|one hundred|one thousand|one million"""
    ),
)
COUNTED = _phrases("boxes|dollars|people|tickets|letters|pounds|minutes|apples|chickens|pencils|gallons|soldiers")
GREETING = _phrases("hello|thank you|good morning|good night|excuse me|yes|no|welcome|sorry|of course|please wait")
FRAME_WORDS = _phrases(
    """what|where|when|who|why|how|many|did|is|was|are|there|will|bring|number|today|and|because|but|if|can|help|
    with|it|not|left"""
)
VOCABULARY = tuple(
    sorted(
        {word for phrase in (*SUBJECT, *PAST, *THING, *PLACE, *TIME, *ADJECTIVE, *NOUN, *NUMBER, *COUNTED, *GREETING)
         for word in phrase.split()} | set(FRAME_WORDS) | set(MONTHS) | set(DAYS),
        key=str.lower,
    )
)  # fmt: skip


def sentence(pick: random.Random) -> str:
    """One sentence of the grammar: cased, ending in `.` or `?`, with `,` between clauses."""
    one = pick.choice
    patterns: tuple[Callable[[], str], ...] = (
        lambda: f"{one(SUBJECT)} {one(PAST)} {one(THING)} {one(PLACE)}.",
        lambda: f"{one(SUBJECT)} {one(PAST)} {one(THING)} {one(TIME)}.",
        lambda: f"the {one(NOUN)} was {one(ADJECTIVE)} and {one(ADJECTIVE)}.",
        lambda: f"is the {one(NOUN)} {one(ADJECTIVE)} today?",
        lambda: f"did {one(SUBJECT)} find {one(THING)} {one(PLACE)}?",
        lambda: f"the number is {' '.join(one(NUMBER) for _ in range(pick.randint(2, 5)))}.",
        lambda: f"the number is {' '.join(one(DIGIT) for _ in range(pick.randint(3, 9)))}.",
        lambda: f"please bring {one(NUMBER)} {one(COUNTED)} and {one(THING)}.",
        lambda: f"{one(TIME)}, {one(SUBJECT)} {one(PAST)} {one(THING)}.",
        lambda: f"{one(SUBJECT)} {one(PAST)} {one(THING)}, and {one(SUBJECT)} {one(PAST)} {one(THING)}.",
        lambda: f"{one(GREETING)}, {one(SUBJECT)} {one(PAST)} {one(THING)}.",
        lambda: f"how many {one(COUNTED)} are there {one(PLACE)}?",
        lambda: f"why was the {one(NOUN)} {one(ADJECTIVE)} {one(TIME)}?",
        lambda: f"what will {one(SUBJECT)} bring {one(TIME)}?",
        lambda: f"{one(SUBJECT)} can help with the {one(NOUN)} {one(TIME)}, but it is not {one(ADJECTIVE)}.",
        lambda: f"if the {one(NOUN)} is {one(ADJECTIVE)}, {one(SUBJECT)} will bring {one(THING)}.",
        lambda: f"{one(SUBJECT)} left {one(TIME)} because the {one(NOUN)} was {one(ADJECTIVE)}.",
        lambda: f"who {one(PAST)} {one(THING)} {one(PLACE)}, and when?",
        lambda: f"where is {one(THING)}?",
        lambda: f"there are {one(NUMBER)} {one(COUNTED)} {one(PLACE)}.",
    )
    return _capitalized(one(patterns)())


def random_words(pick: random.Random, fewest: int, most: int) -> str:
    """Random vocabulary words as one sentence that ends in `.`: only the sound says which word is next."""
    return _capitalized(" ".join(pick.choice(VOCABULARY) for _ in range(pick.randint(fewest, most))) + ".")


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


@dataclass(frozen=True)
class Voice:
    """A synthesizer's voice."""

    engine: Engine
    name: str
    speed: float  # espeak-ng: words a minute; flite: duration_stretch
    pitch: int = 50  # espeak-ng only


@dataclass(frozen=True)
class SpokenWord:
    """A word, and when it is said. start, end: in seconds."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """A clip, and what is said in it. samples: mono, 16 kHz. words: with espeak-ng's own times; empty for flite."""

    text: str
    voice: Voice
    samples: npt.NDArray[np.int16]
    words: tuple[SpokenWord, ...]


ESPEAK_ACCENTS = ("en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-gb-x-gbclan")
ESPEAK_VARIANTS = _phrases(
    """m1|m2|m3|m4|m5|m6|f1|f2|f3|f4|Alex|Andy|Annie|Mario|Michael|Lee|linda|steph|Storm|Gene|
    Hugo|Jacky|anika|belinda|benjamin|edward|grandma|grandpa|iven|john|kaukovalta|marcelo|max|miguel|
    norbert|pablo|paul|pedro|quincy|rob|robert|sandro|shelby|steph2|travis|zac|Alicia|Andrea|Denis|
    Diogo|adam|antonio|boris|caleb|david|ed|Henrique|Marco"""
)
FLITE_VOICES = ("slt", "kal16", "awb")
# Not in the training set: an accent, five espeak-ng variants, and a whole flite speaker.
HELD_OUT_ESPEAK = ("en-gb-x-gbcwmd", "en-us+m7", "en+f5", "en-us+victor", "en-us+Nguyen", "en+michel")
HELD_OUT_FLITE = ("rms",)


def pick_training_voice(pick: random.Random, engine: Engine) -> Voice:
    """A voice of the training set."""
    if engine == "flite":
        return Voice("flite", pick.choice(FLITE_VOICES), round(pick.uniform(0.85, 1.2), 2))
    accent, variant = pick.choice(ESPEAK_ACCENTS), pick.choice(("", *ESPEAK_VARIANTS))
    return Voice("espeak", f"{accent}+{variant}" if variant else accent, pick.randint(130, 210), pick.randint(25, 75))


def pick_held_out_voice(pick: random.Random, engine: Engine) -> Voice:
    """A voice that is not in the training set."""
    if engine == "flite":
        return Voice("flite", pick.choice(HELD_OUT_FLITE), round(pick.uniform(0.85, 1.2), 2))
    return Voice("espeak", pick.choice(HELD_OUT_ESPEAK), pick.randint(130, 210), pick.randint(25, 75))


def speak(text: str, voice: Voice) -> Speech:
    """Synthesize `text` at 16 kHz mono, with the word times that espeak-ng gives.

    Raises RuntimeError if espeak-ng has no voices or not this one, or if there is no audio.
    """
    samples, rate, words = _espeak().speak(text, voice) if voice.engine == "espeak" else _flite(text, voice)
    if not len(samples):
        raise RuntimeError(f"{voice} gave no audio for {text!r}")
    resampled = soxr.resample(samples.astype(np.float32), rate, SAMPLE_RATE, quality="HQ")
    return Speech(text, voice, np.clip(np.round(resampled), -32768, 32767).astype(np.int16), words)


def to_float(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """16-bit samples as float32 in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(32768)


def cut_pauses(samples: npt.NDArray[Sample], longest: int = 8) -> npt.NDArray[Sample]:
    """The same speech with short pauses: frames of 10 ms below a fiftieth of the loudest, at most `longest` in a row.

    The default, 80 ms, is as long as a plosive's closure.
    """
    frame = SAMPLE_RATE // 100
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    loudness = np.sqrt((frames.astype(np.float32) ** 2).mean(1))
    places = np.arange(len(frames))
    last_loud = np.maximum.accumulate(np.where(loudness < loudness.max() / 50, -1, places))
    return frames[places - last_loud <= longest].reshape(-1)


def _flite(text: str, voice: Voice) -> tuple[npt.NDArray[np.int16], int, tuple[SpokenWord, ...]]:
    with tempfile.TemporaryDirectory(prefix="flite-") as folder:
        path = Path(folder, "speech.wav")
        command = [
            "flite",
            "-voice",
            voice.name,
            "--setf",
            f"duration_stretch={voice.speed}",
            "-t",
            text,
            "-o",
            str(path),
        ]
        subprocess.run(command, check=True, capture_output=True)
        with wave.open(str(path)) as speech:
            return np.frombuffer(speech.readframes(speech.getnframes()), np.int16), speech.getframerate(), ()


class _Event(ctypes.Structure):  # espeak_EVENT in speak_lib.h
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_WORD, _END, _PHONEME = 1, 5, 7  # espeak_EVENT_TYPE
_SYNCHRONOUS, _PHONEME_EVENTS, _UTF8, _RATE, _PITCH = 2, 1, 1, 1, 3


class _Espeak:
    """libespeak-ng in this process: besides the audio, it gives the start of each word and phoneme."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1")
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
        if self._rate <= 0:
            raise RuntimeError("espeak-ng has no voices: apt-get install espeak-ng")
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)
        self._audio: list[npt.NDArray[np.int16]] = []
        self._events: list[tuple[int, int, float, str]] = []

    def _receive(self, audio: object, count: int, events: object) -> int:
        if audio and count > 0:
            self._audio.append(np.ctypeslib.as_array(audio, (count,)).copy())
        index = 0
        while (event := events[index]).type:  # type: ignore[index]
            name = event.name.decode("utf-8", "replace")
            self._events.append((event.type, event.text_position, event.audio_position / 1000, name))
            index += 1
        return 0

    def speak(self, text: str, voice: Voice) -> tuple[npt.NDArray[np.int16], int, tuple[SpokenWord, ...]]:
        self._audio, self._events = [], []
        if self._library.espeak_SetVoiceByName(voice.name.encode()):
            raise RuntimeError(f"espeak-ng has no voice {voice.name}")
        self._library.espeak_SetParameter(_RATE, int(voice.speed), 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
        audio = np.concatenate(self._audio) if self._audio else np.zeros(0, np.int16)
        return audio, self._rate, _word_times(text, self._events, len(audio) / self._rate)


def _word_times(text: str, events: list[tuple[int, int, float, str]], duration: float) -> tuple[SpokenWord, ...]:
    """The words and their times. A word starts at its event and ends where the next word or a pause begins.

    espeak-ng speaks some pairs ("in the") as one word and gives no time for the second: then neither is listed.
    """
    begun = [(position - 1, start) for kind, position, start, _ in events if kind == _WORD]
    breaks = sorted(
        {start for _, start in begun}
        | {start for kind, _, start, name in events if kind == _PHONEME and (not name or name.startswith("_"))}
        | {start for kind, _, start, _ in events if kind == _END}
        | {duration}
    )
    words = []
    for (position, start), (following, _) in zip(begun, [*begun[1:], (len(text), duration)], strict=True):
        spoken = text[position:following].split()
        if len(spoken) == 1:
            end = next((moment for moment in breaks if moment > start), duration)
            words.append(SpokenWord(spoken[0], start, end))
    return tuple(words)


@functools.cache
def _espeak() -> _Espeak:
    return _Espeak()


def utterance_text(kind: Kind, seed: int) -> str:
    """The text of the clip of that kind and seed.

    kind: `words` is one or two vocabulary words without punctuation, `random` a sequence of three to eight,
    `sentences` one or two sentences of the grammar.
    """
    pick = random.Random(f"{kind}-{seed}")
    match kind:
        case "words":
            return " ".join(pick.choice(VOCABULARY) for _ in range(pick.randint(1, 2)))
        case "random":
            return random_words(pick, 3, 8)
        case "sentences":
            return " ".join(sentence(pick) for _ in range(1 if pick.random() < 0.75 else 2))


def utterance(kind: Kind, seed: int, *, flite_share: float, held_out: bool = False) -> Speech:
    """The clip of that kind and seed: always the same words in the same voice, a training or a held-out one."""
    pick = random.Random(f"voice-{kind}-{seed}")
    engine: Engine = "flite" if pick.random() < flite_share else "espeak"
    return speak(utterance_text(kind, seed), (pick_held_out_voice if held_out else pick_training_voice)(pick, engine))
