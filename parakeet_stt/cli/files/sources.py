"""What the arguments of `parakeet transcribe` name: files, folders, patterns, addresses, standard input."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

from parakeet_stt.audio import RECORDING_SUFFIXES

STANDARD_INPUT = "-"


class WrongArguments(Exception):
    """The arguments name nothing, or too much; the message is one line."""


@dataclass(frozen=True, slots=True)
class Source:
    """One recording. name: as the caller knows it. path: below the output folder, with the recording's own suffix.

    Of a file `name` is its path, of an address the address.
    """

    name: str
    path: PurePath

    @property
    def is_address(self) -> bool:
        """Whether it is to be downloaded."""
        return _is_address(self.name)

    @property
    def is_standard_input(self) -> bool:
        """Whether it is read from standard input."""
        return self.name == STANDARD_INPUT


def find_sources(arguments: Iterable[str]) -> list[Source]:
    """The recordings that the arguments name, each once, in their order; those of a folder in alphabetical order.

    Raises WrongArguments for an argument that names none.
    """
    found: dict[str, Source] = {}
    for argument in arguments:
        sources = list(_find(argument))
        if not sources:
            raise WrongArguments(
                f"{argument} holds no recording (in folders, files that end in {_list(RECORDING_SUFFIXES)})"
            )
        for source in sources:
            found.setdefault(source.name, source)
    return list(found.values())


def choose_outputs(sources: Sequence[Source], formats: Sequence[str]) -> dict[Source, dict[str, PurePath]]:
    """Paths of each source's outputs below the output folder, by format: `a.wav` gives `a.txt`.

    Where `a.wav` and `a.mp3` would both give it, they give `a.wav.txt` and `a.mp3.txt`. Raises WrongArguments if two
    sources would be the same even so.
    """
    stems = Counter(source.path.with_suffix("") for source in sources)
    chosen = {
        source: source.path.with_suffix("") if stems[source.path.with_suffix("")] == 1 else source.path
        for source in sources
    }
    owners: dict[PurePath, Source] = {}
    for source, path in chosen.items():
        if (other := owners.setdefault(path, source)) is not source:
            raise WrongArguments(
                f"{other.name} and {source.name} would both be written to {path}.{formats[0]}: name a folder that "
                "holds both, or run the command for each"
            )
    return {source: {one: path.with_name(f"{path.name}.{one}") for one in formats} for source, path in chosen.items()}


def _find(argument: str) -> Iterator[Source]:
    if argument == STANDARD_INPUT:
        yield Source(argument, PurePath("stdin"))
    elif _is_address(argument):
        yield Source(argument, PurePath(unquote(PurePath(urlsplit(argument).path).name) or "download"))
    elif (path := Path(argument)).is_dir():
        yield from _below(path)
    elif path.exists():
        yield Source(argument, PurePath(path.name))
    elif glob.has_magic(argument):
        for name in sorted(glob.glob(argument, recursive=True)):
            yield from _below(Path(name)) if Path(name).is_dir() else [Source(name, PurePath(Path(name).name))]
    else:
        raise WrongArguments(f"{argument}: there is no such file, folder or pattern")


def _below(folder: Path) -> Iterator[Source]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in RECORDING_SUFFIXES and not name.startswith("."):
                yield Source(str(path), path.relative_to(folder))


def _is_address(argument: str) -> bool:
    return argument.startswith(("http://", "https://"))


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
