import json
import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unpool.data import pieces
from unpool.data.pieces import read_pieces
from unpool.errors import DataError

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def read(path):
    found = {}
    for name, value in read_pieces(path):
        found[name] = value if isinstance(value, dict) or not hasattr(value, "send") else [*value]
    return found


@given(
    value=st.dictionaries(st.text(), VALUE) | st.lists(VALUE),
    indent=st.sampled_from([None, 2]),
    piece=st.integers(1, 9),
)
def test_the_contents_are_those_of_the_whole_file(tmp_path_factory, value, indent, piece):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False), "utf-8", "surrogatepass")
    try:
        path.read_text("utf-8")
    except UnicodeDecodeError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "MIB", piece)
        assert read(path) == (value if isinstance(value, dict) else {"": value})


def test_lists_that_are_not_read_are_skipped(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2, 3], "b": [4, 5], "c": 6}')
    found = {}
    for name, value in read_pieces(path):
        found[name] = next(value) if name == "b" else value
    assert (found["b"], found["c"]) == (4, 6)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"[", b'{"a"', b'{"a":', b'{"a": 1', b'{"a": [', b'{"a": [1', b'{"a": [1,'),
        *(b'{"a": [1,]}', b'{"a": 1,}', b'{"a": 1} x', b"[1] 2", b"{1: 2}", b"7", b'"a"', b"nope"),
        *(b"\xff\xfe\xfa", b'{"a": "\xff"}', b"[" * 100_000, b'{"a":' * 100_000, b"[[1]}"),
        *(b"[" + b"9" * 5000 + b"]", b"\x00", b'{"a": "\x01"}'),
    ],
)
def test_what_is_not_json(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=r"a.json, which is not JSON \(.*\); export") as got:
        read(path)
    assert "\n" not in str(got.value)


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}', "utf-8-sig")
    assert read(tmp_path / "a.json") == {"a": 1}


def test_files_and_pieces_have_limits(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": [[0] * 1000]}))
    monkeypatch.setattr(pieces, "MIB", 10)
    monkeypatch.setattr(pieces, "MAX_PIECE", 100)
    with pytest.raises(DataError, match=r"not JSON \(a part of over 100 characters"):
        read(path)
    monkeypatch.setattr(pieces, "MAX_ANNOTATIONS", 1000)
    with pytest.raises(DataError, match="of 3009 bytes; wanted 1000 at most: split it"):
        read(path)


def test_lists_have_a_limit(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2, 3, 4]}')
    monkeypatch.setattr(pieces, "MAX_OBJECTS", 3)
    with pytest.raises(DataError, match=r"got .*a.json with a list of over 3; split it"):
        read(path)


def test_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DataError, match="which is a pipe, device or socket; wanted a regular"):
        read(tmp_path / "a.json")


def test_the_memory_is_that_of_a_piece(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": [{"n": [[], [], []] * 10}] * 100_000}))  # 10 MB
    tracemalloc.start()
    assert sum(len(each["n"]) for _, value in read_pieces(path) for each in value) == 3_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # the whole needs 190 MB
