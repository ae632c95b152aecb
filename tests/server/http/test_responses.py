"""How values are written as JSON."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parakeet_stt.server.http import responses
from parakeet_stt.server.http.responses import json_bytes
from parakeet_stt.text.lazy_sequence import LazySequence, lazy_map

simple = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(simple, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(st.dictionaries(st.text(), values, max_size=3))
def test_what_is_written_is_what_json_writes(value: dict[str, Any]) -> None:
    assert json.loads(json_bytes(value)) == value


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_a_lazy_sequence_is_written_as_a_list(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "ITEMS_AT_ONCE", 2)
    items = LazySequence(count, lambda index: {"n": index, "text": "ä, ]["})
    assert json.loads(json_bytes({"a": {"items": items, "b": 1}, "c": items})) == {
        "a": {"items": list(items), "b": 1},
        "c": list(items),
    }


def test_hours_of_entries_take_little_more_memory_than_their_text() -> None:
    entries = lazy_map(range(60_000), lambda n: {"word": "word", "start": n / 7, "end": n / 7 + 0.1})
    tracemalloc.start()
    try:
        text = json_bytes({"words": entries})
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(json.loads(text)["words"]) == 60_000
    assert most < 1.5 * len(text)
