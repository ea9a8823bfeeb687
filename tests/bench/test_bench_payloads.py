"""What events carry is given as a name, a size, a file or a function."""

import pytest

from relay_mp._bench import payloads
from relay_mp._bench.payloads import FOUR_FIELDS, MAX_BYTES, payload_of, size_of
from relay_mp.errors import SubscriberError


def test_names_sizes_files_and_functions(tmp_path):
    assert payload_of("fields") == FOUR_FIELDS
    assert payload_of("none") is None
    assert len(payload_of("3KiB")["text"]) == 3072
    (tmp_path / "a.json").write_text('{"a": [1]}', encoding="utf-8")
    (tmp_path / "a.txt").write_text("hello", encoding="utf-8")
    assert payload_of(str(tmp_path / "a.json")) == {"a": [1]}
    assert payload_of(str(tmp_path / "a.txt")) == {"text": "hello"}
    assert payload_of("builtins:dict") == {}


def test_what_is_none_of_them_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        payload_of(str(tmp_path / "missing.json"))
    with pytest.raises(SubscriberError, match="payload 'builtins:nothing'"):
        payload_of("builtins:nothing")
    monkeypatch.setattr(payloads, "MAX_BYTES", 10)
    assert payload_of("10")
    with pytest.raises(ValueError, match="11 bytes; expected at most 10"):
        payload_of("11")
    (tmp_path / "large").write_text("x" * 11, encoding="utf-8")
    with pytest.raises(ValueError, match="11 bytes"):
        payload_of(str(tmp_path / "large"))


def test_sizes():
    assert [size_of(text) for text in ("7", "7B", "2KiB", "64MiB", "7KB", "x")] == [7, 7, 2048, MAX_BYTES, None, None]
