"""Manifests: each form that people have gives the same recordings, and a wrong one is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from parakeet_stt.measure.clips import UnreadableAudio, decode, load, write_wav
from parakeet_stt.measure.manifests import BadManifest, Fields, Manifest, Recording, find_manifests
from tests.conftest import SAMPLES

SHORT, TWO = SAMPLES / "short.flac", SAMPLES / "two-sentences.flac"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings, a.flac and clips/b.flac."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "a.flac").write_bytes(SHORT.read_bytes())
    (tmp_path / "clips" / "b.flac").write_bytes(TWO.read_bytes())
    return tmp_path


def one_of(path: Path, **fields: str) -> Manifest:
    (found,) = find_manifests([path], Fields(**fields))
    return found


def read(path: Path, **fields: str) -> list[tuple[str, str]]:
    """The files' names and texts."""
    return [(Path(str(one.audio)).name, one.text) for one in one_of(path, **fields)]


BOTH = [("a.flac", "First one."), ("b.flac", 'The "second".')]


@pytest.mark.parametrize(
    ("audio", "text"), [("audio_filepath", "text"), ("file_name", "transcription"), ("path", "sentence")]
)
def test_json_lines_of_nemo_and_of_hugging_face(folder: Path, audio: str, text: str) -> None:
    entries = [{audio: "a.flac", text: "First one."}, {audio: "clips/b.flac", text: 'The "second".'}]
    (folder / "m.jsonl").write_text("\n\n".join(map(json.dumps, entries)))
    assert read(folder / "m.jsonl") == BOTH
    (folder / "m.json").write_text(json.dumps(entries))
    assert read(folder / "m.json") == BOTH
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, entries)))
    assert read(folder) == BOTH


def test_tables(folder: Path) -> None:
    (folder / "m.csv").write_text('file,transcript\na.flac,First one.\nclips/b.flac,"The ""second""."\n')
    assert read(folder / "m.csv") == BOTH
    (folder / "validated.tsv").write_text(
        'client_id\tpath\tsentence\n1\ta.flac\tFirst one.\n2\tb.flac\tThe "second".\n'
    )
    assert read(folder / "validated.tsv") == BOTH


def test_a_folder_with_texts_beside_the_audio(folder: Path) -> None:
    (folder / "a.txt").write_text("First\none.\n")
    (folder / "clips" / "b.txt").write_text('The "second".')
    (folder / "clips" / "untranscribed.wav").write_bytes(b"")
    assert read(folder) == BOTH
    assert len(one_of(folder)) == 2


def test_parquet_has_the_audio_itself_and_sets_in_parts(folder: Path) -> None:
    audio = [{"bytes": SHORT.read_bytes(), "path": "a.flac"}, {"bytes": TWO.read_bytes(), "path": None}]
    rows = pa.table({"audio": audio, "text": ["First", "Second"], "id": ["x", "y"]})
    for number in (0, 1):
        (folder / "libri").mkdir(exist_ok=True)
        pq.write_table(rows.slice(number, 1), folder / "libri" / f"test.clean-0000{number}-of-00002.parquet")
    pq.write_table(rows, folder / "libri" / "test.other-00000-of-00001.parquet")
    clean, other = find_manifests([folder])
    assert (clean.name, other.name) == ("libri test.clean", "libri test.other")
    assert (len(clean), len(other)) == (2, 2)
    found = list(clean)
    assert [(one.name, one.text) for one in found] == [("x", "First"), ("y", "Second")]
    assert found == list(other)
    clips = [load(one) for one in found]
    assert [clip.data for clip in clips] == [SHORT.read_bytes(), TWO.read_bytes()]
    assert round(clips[0].seconds, 3) == 4.403


def test_fields_can_be_named(folder: Path) -> None:
    (folder / "m.jsonl").write_text(json.dumps({"path": "no.wav", "sound": "a.flac", "text": "wrong", "said": "right"}))
    assert read(folder / "m.jsonl", audio="sound", text="said") == [("a.flac", "right")]


def test_names_say_which_set_it_is(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("libri.jsonl", "ami/manifest.json", "other/libri.jsonl")]
    assert [one.name for one in find_manifests(paths)] == ["libri", "ami", str(paths[2])]


def test_offset_and_duration_name_a_part(folder: Path) -> None:
    entry = {"audio_filepath": "clips/b.flac", "text": "", "offset": 1.5, "duration": 2.25}
    (folder / "m.jsonl").write_text(json.dumps(entry))
    (recording,) = one_of(folder / "m.jsonl")
    clip = load(recording)
    assert clip.seconds == 2.25
    assert clip.filename.endswith(".wav")
    whole = decode(TWO.read_bytes())
    assert decode(clip.data).tolist() == whole[24_000:60_000].tolist()


def test_a_duration_of_the_whole_file_leaves_it_as_it_is(folder: Path) -> None:
    assert load(Recording("a", folder / "a.flac", "", duration=4.4)).data == SHORT.read_bytes()


def test_words_have_their_times(folder: Path) -> None:
    recording = next(iter(one_of(SAMPLES / "samples.json")))
    assert recording.words[0].text == "If"
    assert (recording.words[0].start, recording.words[0].end) == (0.2, 0.362)
    (folder / "m.csv").write_text('file,text,words\na.flac,If,"[{""text"": ""If"", ""start"": 0.2, ""end"": 0.4}]"\n')
    (recording,) = one_of(folder / "m.csv")
    assert [word.end for word in recording.words] == [0.4]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"text": "x"}, "entry 1: no field for the audio .*; its fields are text"),
        ({"audio": "a.flac"}, "entry 1: no field for the text"),
        ({"audio": "none.wav", "text": "x"}, "there is no file .*none.wav"),
        ({"audio": 3, "text": "x"}, "the audio 3 is neither a path nor bytes"),
        ({"audio": "a.flac", "text": 3}, "the text 3 is not a string"),
        ({"audio": "a.flac", "text": "x", "offset": "later"}, "offset is 'later'"),
        ({"audio": "a.flac", "text": "x", "duration": -1}, "duration is -1"),
        ({"audio": "a.flac", "text": "x", "words": [{"word": "x"}]}, "no object of word, start and end"),
        (["a.flac", "x"], "is not an object"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(folder: Path, entry: Any, message: str) -> None:
    (folder / "m.jsonl").write_text(json.dumps(entry))
    with pytest.raises(BadManifest, match=message):
        list(one_of(folder / "m.jsonl"))


def test_what_is_no_manifest_is_refused(folder: Path) -> None:
    with pytest.raises(BadManifest, match="does not exist"):
        list(one_of(folder / "none.jsonl"))
    with pytest.raises(BadManifest, match="a manifest is a folder, or ends with"):
        list(one_of(folder / "a.flac"))
    with pytest.raises(BadManifest, match="no recording with a"):
        list(one_of(folder))
    for name in ("m.parquet", "m.csv"):
        (folder / name).write_bytes(b"\xff\xfe nothing")
        with pytest.raises(BadManifest, match=name):
            list(one_of(folder / name))
    (folder / "m.jsonl").write_text('{"audio": "a.flac", "text": "x"}\n{"audio"\n')
    with pytest.raises(BadManifest, match="line 2"):
        list(one_of(folder / "m.jsonl"))


def test_audio_that_can_t_be_read_is_named(folder: Path) -> None:
    (folder / "c.wav").write_bytes(b"nothing")
    with pytest.raises(UnreadableAudio, match="third"):
        load(Recording("third", folder / "c.wav", ""))
    with pytest.raises(UnreadableAudio, match="no audio at 100 s"):
        load(Recording("late", folder / "a.flac", "", offset=100))
    with pytest.raises(UnreadableAudio, match="empty"):
        load(Recording("empty", write_wav(decode(SHORT.read_bytes())[:0]), "", offset=1))
