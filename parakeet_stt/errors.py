"""All errors that the service raises on purpose, with messages for callers. server/http/errors.py makes HTTP of them.

SpeechError
├── RequestError            the caller's fault; names the field
│   ├── InvalidField        a field's value is not allowed
│   ├── UnsupportedField    allowed by the contract, not by this server
│   ├── AudioError          the uploaded audio can't be used
│   │   ├── UndecodableAudio
│   │   ├── AudioTooShort
│   │   └── AudioTooLong
│   ├── UploadTooLarge
│   ├── UploadStalled
│   ├── UnknownModel
│   ├── NotAuthorized
│   ├── OriginRefused
│   └── HostRefused
├── Overloaded              too much is waiting: retry later
│   └── Unavailable         what is needed is not there now, and will be soon
│       └── ShuttingDown    the service takes on nothing more; another instance may be there
├── RecognitionError        our fault, while recognizing
│   ├── OutOfMemory         a batch did not fit
│   └── DeviceLost          nothing will work until the process is restarted
└── StartupError            our fault, or the operator's, before serving: one line says what to do
"""

from __future__ import annotations

MAX_CHARACTERS = 800  # of a message: it quotes values that may be megabytes


def _shorten(text: str) -> str:
    """At most `MAX_CHARACTERS` of it; unpaired surrogates, which JSON may name and no answer can hold, replaced."""
    whole = text.encode(errors="replace").decode()
    return whole if len(whole) <= MAX_CHARACTERS else f"{whole[:MAX_CHARACTERS]}…"


class SpeechError(Exception):
    """Base of all errors that the service raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(SpeechError):
    """The request can't be served as it is; `param` names the field, `code` the reason."""

    code: str = "invalid_value"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(_shorten(message))
        self.param = param and _shorten(param)
        self.code = code or self.code


class InvalidField(RequestError):
    """A field's value is not one of those allowed."""


class UnsupportedField(RequestError):
    """The contract knows this value, this server can't honour it."""

    code = "unsupported_value"


class AudioError(RequestError):
    """The uploaded audio can't be used."""

    code = "invalid_audio"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="file")


class UndecodableAudio(AudioError):
    """Not a supported media file, damaged beyond use, or without an audio track."""


class AudioTooShort(AudioError):
    """Under the shortest audio that can hold a word."""

    code = "audio_too_short"


class AudioTooLong(AudioError):
    """Over the operator's limit."""

    code = "audio_too_long"


class UploadTooLarge(RequestError):
    """More bytes than the operator allows."""

    code = "file_too_large"


class UploadStalled(RequestError):
    """The rest of the request's body does not come."""

    code = "upload_stalled"


class UnknownModel(RequestError):
    """No such model is served here."""

    code = "model_not_found"


class NotAuthorized(RequestError):
    """The API key is missing or wrong."""

    code = "invalid_api_key"


class OriginRefused(RequestError):
    """The page that asks is of a site that may not."""

    code = "origin_not_allowed"


class HostRefused(RequestError):
    """The service is not to be called by this name."""

    code = "host_not_allowed"


class Overloaded(SpeechError):
    """More is waiting than this server takes on; it should be done in `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(Overloaded):
    """A process of the service is being started again, and has not come back in time."""


class ShuttingDown(Unavailable):
    """The service takes on nothing more."""


class RecognitionError(SpeechError):
    """The model failed on audio that should have been fine."""


class OutOfMemory(RecognitionError):
    """The batch is more than the device's memory holds; a smaller one may fit."""


class DeviceLost(RecognitionError):
    """The device failed for good: only a new process can use it again."""


class StartupError(SpeechError):
    """The service can't start; the message is one line that says what to do."""


def first_line(exc: BaseException) -> str:
    """An error's message without the advice that libraries append to it."""
    return next(iter(str(exc).splitlines()), type(exc).__name__)
