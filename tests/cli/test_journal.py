"""The journal: whatever moment a command is killed at, the next one loses nothing and repeats nothing."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from parakeet_stt.cli.files.journal import NAME, Entry, Journal, OutputError, Written

PATH = PurePath("sub/a.txt")
BODY = b"words\n"
ENTRY = Entry("c", "k", "a.wav", {"txt": Written.of(PATH, BODY)}, is_truncated=True, validators={"etag": "1"})


def write(folder: Path) -> None:
    with Journal.opened(folder) as journal:
        journal.write(ENTRY, {"txt": BODY})


def found(folder: Path, path: PurePath = PATH, content: str = "c", asked: str = "k") -> tuple[bytes, Entry] | None:
    with Journal.opened(folder) as journal:
        return journal.find(content, asked, "txt", path)


def test_what_was_written_is_found_by_its_content_and_by_what_was_asked(tmp_path: Path) -> None:
    write(tmp_path)
    assert (tmp_path / PATH).read_bytes() == BODY
    assert found(tmp_path) == (BODY, ENTRY)
    assert found(tmp_path, PurePath("elsewhere.txt")) == (BODY, ENTRY)
    assert found(tmp_path, content="d") is None
    assert found(tmp_path, asked="l") is None
    with Journal.opened(tmp_path) as journal:
        assert journal.find("c", "k", "srt", PATH) is None
        assert journal.find_source("a.wav", "k") == ENTRY


def test_an_output_that_was_changed_does_not_count(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / PATH).write_bytes(b"other words\n")
    assert found(tmp_path) is None
    with Journal.opened(tmp_path) as journal, pytest.raises(OutputError, match="--force"):
        journal.check_free(PATH)


def test_one_that_was_killed_before_it_named_its_output_has_written_it(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / PATH).rename(tmp_path / "sub" / ".a.txt.part")
    assert found(tmp_path) == (BODY, ENTRY)
    with Journal.opened(tmp_path) as journal:
        assert not journal.has(PATH, BODY)
        journal.write(ENTRY, {"txt": BODY})
        assert journal.has(PATH, BODY)
    assert (tmp_path / NAME).read_text() == ENTRY.to_line()  # once


def test_one_that_was_killed_within_a_line_has_not(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / NAME
    file.write_bytes(file.read_bytes() + ENTRY.to_line().encode()[:40])
    later = Entry("e", "k", "b.wav", {"txt": Written.of(PurePath("b.txt"), b"more\n")})
    with Journal.opened(tmp_path) as journal:
        journal.write(later, {"txt": b"more\n"})
    assert found(tmp_path) == (BODY, ENTRY)
    assert found(tmp_path, PurePath("b.txt"), "e") == (b"more\n", later)


def test_lines_that_are_no_entries_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('[]\n{"content": 1}\nnonsense\n{"content": "c", "outputs": {"txt": 5}}\n')
    write(tmp_path)
    assert found(tmp_path) == (BODY, ENTRY)


def test_two_commands_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with Journal.opened(tmp_path), pytest.raises(OutputError, match="another parakeet"):
        with Journal.opened(tmp_path):
            pass


def test_a_folder_that_can_not_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't be written"), Journal.opened(tmp_path / "file" / "out"):
        pass
