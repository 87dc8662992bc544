"""Damaged text from external systems: JSON is repaired in its length, texts are cleaned."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.kernel.external_text import clean_text, decode_repaired_json, repair_json


@pytest.mark.parametrize(
    ("damaged", "text"),
    [
        (b"tea", "tea"),
        ("红茶🍵".encode(), "红茶🍵"),
        (b"\\ud83c\\udf75", "🍵"),
        (b"\\ud83c", "\ufffd"),
        (b"\\udf75!", "\ufffd!"),
        (b"\\uD83C\\ud83c\\uDF75", "\ufffd🍵"),
        (b"\\\\ud83c", "\\ud83c"),
        (b"\\\\\\ud83c", "\\\ufffd"),
        (b"\xed\xa0\xbc", "???"),
        (b"a\xffb", "a?b"),
        (b"\xe7\xba", "??"),
        (b"\\u0000\\u001F\\u007f", "   "),
        (b"\0\n\x1b[31m", "  " + " [31m"),
        (b'\\n\\t\\"', '\n\t"'),
    ],
)
def test_damaged_json_is_repaired_in_its_length(damaged: bytes, text: str) -> None:
    body = b'{"a":"' + damaged + b'"}'
    assert len(repair_json(body)) == len(body)
    assert decode_repaired_json(body, dict[str, str]) == {"a": text}
    assert decode_repaired_json(body.decode("utf-8", "surrogateescape"), dict[str, str]) == {"a": text}


@given(st.binary(max_size=60))
def test_any_bytes_in_a_string_are_readable_or_malformed(inside: bytes) -> None:
    body = b'{"a":"' + inside + b'"}'
    repaired = repair_json(body)
    assert len(repaired) == len(body)
    repaired.decode()
    try:
        value = msgspec.json.decode(repaired)
    except msgspec.DecodeError:  # a quotation mark or an incomplete escape
        assert b'"' in inside or b"\\" in inside
    else:
        assert "\0" not in json.dumps(value, ensure_ascii=False)


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_cleaned_text_can_be_stored_and_shown(text: str) -> None:
    cleaned = clean_text(text, 20)
    assert len(cleaned) <= 20
    assert cleaned == cleaned.strip()
    assert cleaned.isprintable()
    cleaned.encode()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (None, ""),
        ("", ""),
        (" a\n\tb\0\u200b\u202e ", "a b"),
        ("half \ud83c", "half"),
        ("x" * 30, "x" * 20),
        ("茶 " * 20, "茶 " * 9 + "茶"),
    ],
)
def test_text_is_one_printable_line(text: str | None, cleaned: str) -> None:
    assert clean_text(text, 20) == cleaned
