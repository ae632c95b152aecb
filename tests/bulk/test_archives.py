"""What goes in and what comes out: the entries of every form of archive, and tables that are whole or not there."""

from __future__ import annotations

import json
import os
import threading
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from parakeet_stt.bulk.destination import Destination, DestinationError, Form
from parakeet_stt.bulk.entries import Entry, Shard, group_entries, make_key, read_entries
from parakeet_stt.bulk.parts import DecodedPart, End, Failure, Gathering, Maker, Part
from parakeet_stt.bulk.reading import open_entry
from parakeet_stt.bulk.rows import Rows
from parakeet_stt.cli.app import app
from parakeet_stt.measure.manifests import BadManifest

ALL = Shard()
ROW = {
    "recording": "a.wav", "source": "/a.wav", "offset": 0.0, "text": "Hello.", "language": "en", "duration": 1.0,
    "speech_seconds": 0.5, "truncated": False, "words": [{"word": "Hello.", "start": 0.1, "end": 0.5}],
    "segments": [{"start": 0.1, "end": 0.5, "text": "Hello.", "avg_logprob": -0.1}],
    "logprobs": [{"token": "Hello.", "logprob": -0.1}], "rtfx": 10.0, "model": "tiny", "code_sha256": "1",
    "lock_sha256": "2", "model_sha256": "3",
}  # fmt: skip

BAD = {"recording": "bad.wav", "source": "/bad.wav", "code": "invalid_audio", "reason": "It is damaged."}


def rows(*names: str) -> Rows:
    return Rows([{"key": make_key(name), **ROW} for name in names])


def addresses(source: object, shard: Shard = ALL) -> list[str]:
    return [entry.address for entry in read_entries(str(source), shard)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.wav", "deep/a.MP3", "deep/notes.txt", ".hidden.wav"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "in"


def test_a_folder_has_the_recordings_in_and_below_it(folder: Path) -> None:
    assert addresses(folder) == [str(folder / "b.wav"), str(folder / "deep/a.MP3")]
    assert addresses(folder / "b.wav") == [str(folder / "b.wav")]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_a_manifest_names_files_beside_it_or_anywhere(folder: Path, suffix: str) -> None:
    listed = [{"audio_filepath": "b.wav", "duration": 3}, {"audio_filepath": "s3://bucket/c.wav", "duration": 4}]
    manifest = folder / f"m.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(listed), manifest)
    elif suffix == "csv":
        manifest.write_text("audio_filepath,duration\nb.wav,3\ns3://bucket/c.wav,4\n")
    else:
        manifest.write_text(json.dumps(listed) if suffix == "json" else "\n".join(map(json.dumps, listed)))
    assert addresses(manifest) == [str(folder / "b.wav"), "s3://bucket/c.wav"]


def test_a_table_may_hold_the_audio_itself(tmp_path: Path) -> None:
    audio = [{"bytes": b"one", "path": "one.wav"}, {"bytes": b"two", "path": "two.wav"}]
    pq.write_table(pa.Table.from_pylist([{"audio": one} for one in audio]), tmp_path / "set-00000-of-00001.parquet")
    entries = list(read_entries(str(tmp_path), ALL))
    assert [(entry.name, entry.content) for entry in entries] == [("one.wav", b"one"), ("two.wav", b"two")]
    with open_entry(entries[0]) as file:
        file.seek(0)
        assert file.read() == b"one"


def test_an_archive_may_be_anywhere_that_fsspec_reads(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/in/a.wav", b"audio")
    memory.pipe("/bucket/m.jsonl", b'{"audio_filepath": "in/a.wav"}\n')
    memory.pipe("/bucket/lists/m.jsonl", b'{"audio_filepath": "../in/a.wav"}\n')
    try:
        for source in ("memory://bucket/in", "memory://bucket/m.jsonl", "memory://bucket/lists/m.jsonl"):
            [entry] = read_entries(source, ALL)
            with open_entry(entry) as file:
                file.seek(0)
                assert file.read() == b"audio"
        with closing(Destination("memory://bucket/out", "jsonl", ALL)) as table:
            table.add(rows("a"))
            table.flush()
            assert table.finished()["transcripts"] == {make_key("a")}
    finally:
        memory.rm("/bucket", recursive=True)


def test_an_archive_may_be_on_a_web_server(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"audio")
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav"}\n')
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            for name in ("a.wav", "m.jsonl"):
                [entry] = read_entries(f"http://127.0.0.1:{server.server_port}/{name}", ALL)
                with open_entry(entry) as file:
                    file.seek(0)
                    assert file.read() == b"audio"
        finally:
            server.shutdown()


def test_what_is_no_archive_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match="does not exist"):
        addresses(tmp_path / "none.jsonl")
    (tmp_path / "m.txt").touch()
    with pytest.raises(BadManifest, match=r"m\.txt: a manifest ends with"):
        addresses(tmp_path / "m.txt")
    (tmp_path / "m.jsonl").write_text('{"text": "no audio"}\n')
    with pytest.raises(BadManifest, match=r"m\.jsonl, entry 1: no field for the audio"):
        addresses(tmp_path / "m.jsonl")


def test_shards_divide_an_archive(folder: Path) -> None:
    for number in range(40):
        (folder / f"{number}.wav").touch()
    found = [addresses(folder, Shard(number, 3)) for number in range(3)]
    assert sorted(one for part in found for one in part) == sorted(addresses(folder))
    assert all(len(one) > 5 for one in found)
    assert Shard.of("2/3") == Shard(2, 3)
    for wrong in ("3/3", "-1/3", "1", "a/b", ""):
        with pytest.raises(ValueError, match="no shard"):
            Shard.of(wrong)


def test_a_task_reads_many_short_recordings_or_a_long_one() -> None:
    expected = [10.0] * 33 + [7200.0] + [0.0] * 40
    groups = [len(group) for group in group_entries(Entry("k", "n", "a", expected_seconds=one) for one in expected)]
    assert groups == [32, 2, 32, 8]


def test_how_long_a_recording_is_is_guessed_from_its_size(tmp_path: Path) -> None:
    for name, size in (("a.wav", 320_000), ("b.flac", 160_000)):
        (tmp_path / name).write_bytes(bytes(size))
    assert {one.expected_seconds for one in read_entries(str(tmp_path), Shard())} == {10.0}


def parts_of(entry: Entry, count: int) -> list[DecodedPart]:
    return [
        DecodedPart(Part(entry, number, end=End(1.0, False) if number == count - 1 else None), (), 1.0, Maker("", {}))
        for number in range(count)
    ]


def test_parts_are_gathered_in_any_order_and_once() -> None:
    entry, other = Entry("k", "n", "a"), Entry("l", "n", "a")
    first, second, third = parts_of(entry, 3)
    gathering = Gathering({"m"})
    [alone] = parts_of(other, 1)
    arriving = [third, first, first, alone, second, second, *parts_of(entry, 1)]
    found = [gathering.add(part) for part in arriving]
    assert found[:4] == [None, None, None, [alone]]
    assert found[4] == [first, second, third]
    assert found[5:] == [None] * 2
    assert gathering.add(parts_of(Entry("m", "n", "a"), 1)[0]) is None
    failed = DecodedPart(Part(Entry("f", "n", "a"), 1, failure=Failure("c", "r")), (), 1.0, Maker("", {}))
    assert gathering.add(failed) == [failed]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_finished_is_what_a_reader_of_the_tables_sees(tmp_path: Path, form: Form) -> None:
    out = tmp_path / "out"
    for names in (["a", "b"], ["c"]):
        with closing(Destination(str(out), form, ALL)) as table:
            table.add(rows(*names))
            table.add(Rows(errors=[{"key": make_key(f"bad {names[0]}"), **BAD}]))
            table.flush()
    halves = []
    for number in range(2):
        with closing(Destination(str(out), form, Shard(number, 2))) as half:
            halves.append(half.finished())
    assert halves[0]["transcripts"] | halves[1]["transcripts"] == set(map(make_key, "abc"))
    assert not halves[0]["transcripts"] & halves[1]["transcripts"]
    assert len(halves[0]["errors"] | halves[1]["errors"]) == 2
    if form == "parquet":
        read = pq.read_table(out / "transcripts").to_pylist()
        assert sorted(row["key"] for row in read) == sorted(map(make_key, "abc"))
        assert {name: read[0][name] for name in ROW} == ROW


def test_a_file_that_is_not_whole_has_no_name_and_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with closing(Destination(str(out), "parquet", ALL)) as table:
        monkeypatch.setattr(os, "fsync", lambda _: 1 / 0)  # as if it was killed there
        table.add(rows("a"))
        with pytest.raises(ZeroDivisionError):
            table.flush()
        assert table.finished()["transcripts"] == set()
    assert files(out) == 1
    assert pq.read_table(out / "transcripts").num_rows == 0
    with closing(Destination(str(out), "parquet", ALL)):
        assert files(out) == 0


def files(out: Path) -> int:
    return sum(1 for path in out.rglob("*part-*"))


def test_two_runs_do_not_write_the_same_shard(tmp_path: Path) -> None:
    with closing(Destination(str(tmp_path), "parquet", Shard(0, 2))):
        with closing(Destination(str(tmp_path), "parquet", Shard(1, 2))):
            with pytest.raises(DestinationError, match="another parakeet bulk is writing shard=00000-of-00002"):
                Destination(str(tmp_path), "parquet", Shard(0, 2))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "xml"], "'xml' is none of parquet, jsonl"),
        (["--shard", "8/8"], "'8/8' is no shard"),
        (["--subtitles", "srt,ass"], "'ass' is none of srt, vtt"),
        (["--max-failures", "2"], "less than or equal to 1"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["bulk", str(tmp_path), "--out", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_an_archive_that_is_not_there_ends_the_command_in_a_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bulk", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == f"parakeet: {tmp_path / 'none'} does not exist"
