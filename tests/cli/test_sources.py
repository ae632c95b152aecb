"""What arguments of `parakeet transcribe` name, and what outputs are called."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from parakeet_stt.cli.files.sources import Source, WrongArguments, choose_outputs, find_sources


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.wav", "a.MP3", "notes.txt", "sub/c.flac", ".hidden/d.wav", "sub/.e.wav"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str) -> list[str]:
    return [source.name for source in find_sources(arguments)]


def test_a_folder_gives_its_recordings_in_order_and_no_hidden_ones(tree: Path) -> None:
    assert names("in") == ["in/a.MP3", "in/b.wav", "in/sub/c.flac"]
    assert [source.path for source in find_sources(["in"])] == [
        PurePath("a.MP3"),
        PurePath("b.wav"),
        PurePath("sub/c.flac"),
    ]


def test_patterns_are_expanded_here_where_no_shell_has_done_it(tree: Path) -> None:
    assert names("in/*.wav") == ["in/b.wav"]
    assert names("in/**/*.flac") == ["in/sub/c.flac"]
    assert names("i?") == ["in/a.MP3", "in/b.wav", "in/sub/c.flac"]


def test_a_file_that_is_named_is_taken_whatever_it_ends_in_and_once(tree: Path) -> None:
    assert names("in/notes.txt", "in", "in/b.wav", "-", "-") == [
        "in/notes.txt",
        "in/a.MP3",
        "in/b.wav",
        "in/sub/c.flac",
        "-",
    ]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tree: Path) -> None:
    (tree / "in" / "[1].wav").touch()
    assert names("in/[1].wav") == ["in/[1].wav"]


@pytest.mark.parametrize("argument", ["in/none.wav", "in/*.ogg", "in/.hidden/none", "empty"])
def test_an_argument_that_names_nothing_is_an_error(tree: Path, argument: str) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(WrongArguments, match=argument.replace("*", r"\*")):
        find_sources(["in", argument])


def test_outputs_keep_the_folders_and_lose_the_suffix_unless_two_would_be_one() -> None:
    sources = [Source(name, PurePath(name)) for name in ("a.wav", "a.mp3", "sub/a.wav")]
    assert [str(one["txt"]) for one in choose_outputs(sources, ["txt"]).values()] == [
        "a.wav.txt",
        "a.mp3.txt",
        "sub/a.txt",
    ]
    assert choose_outputs(sources[2:], ["txt", "srt"]) == {
        sources[2]: {"txt": PurePath("sub/a.txt"), "srt": PurePath("sub/a.srt")}
    }


def test_two_files_of_one_name_are_refused() -> None:
    sources = [Source(name, PurePath("a.wav")) for name in ("x/a.wav", "y/a.wav")]
    with pytest.raises(WrongArguments, match=r"x/a\.wav and y/a\.wav"):
        choose_outputs(sources, ["txt"])


def test_what_an_address_is_called() -> None:
    sources = find_sources(["https://speech.example/a%20b.mp3?x=1", "https://speech.example"])
    assert [str(source.path) for source in sources] == ["a b.mp3", "download"]
