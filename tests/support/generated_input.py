"""Generated inputs: valid documents with parts replaced by unexpected values, and damaged bytes.

FLOODGATE_TEST_EXAMPLES sets how many inputs a test generates, and FLOODGATE_TEST_SEED other random numbers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from random import Random
from typing import Any

UNEXPECTED: list[Any] = [
    None,
    True,
    0,
    -1,
    1,
    1.5,
    -0.0,
    1e308,
    2**31,
    2**53 + 1,
    2**63,
    -(2**63) - 1,
    10**30,
    "",
    " ",
    "\u3000",
    "\u200b",
    "\u2060\u00ad",
    "\u202e" + "txt",
    "\ufeff",
    "\ud800",
    "\udfff" + "a",
    "a\0b",
    "\x1b[31m",
    "[/bold]",
    "é" * 300,
    "漢" * 5_000,
    "x" * 100_000,
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "-infinity",
    "NaN",
    "1e999",
    "2026-02-30",
    "٣",
    "1---",
    "ZZ",
    "../../etc",
    "%00",
    "{}",
    [],
    [None],
    [[[[[]]]]],
    {},
    {"": None},
    {"a": {"a": {"a": {}}}},
]
_TEXTS = [
    "CN",
    "CNY",
    "85123A",
    "double-11",
    "hangzhou",
    "Zhang San",
    "13800000000",
    "310000",
    "2026-11-11T00:00:00Z",
    "2026-11-11",
    "08:00",
    "0192f7c5-0000-7000-8000-000000000001",
    "0192f7c5000070008000000000000001",
    "https://shop.example/back",
    "5f",
]


def input_count(default: int) -> int:
    """Return how many inputs to generate: few in a test run, 100,000 over all tests with `make fuzz`."""
    return int(os.environ.get("FLOODGATE_TEST_EXAMPLES", default))


def input_random(name: str) -> Random:
    return Random(f"{name} {os.environ.get('FLOODGATE_TEST_SEED', '1')}")


def generate_value(random: Random, schema: dict[str, Any], schemas: dict[str, Any], depth: int = 0) -> Any:
    """Generate a value that mostly conforms to a JSON schema."""
    if "$ref" in schema:
        return generate_value(random, schemas[schema["$ref"].rsplit("/", 1)[-1]], schemas, depth)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return generate_value(random, random.choice(choices), schemas, depth)
    if "enum" in schema:
        return random.choice(schema["enum"])
    generate = _GENERATORS.get(schema.get("type", ""))
    return generate(random, schema, schemas, depth) if generate else random.choice(UNEXPECTED)


def _generate_object(random: Random, schema: dict[str, Any], schemas: dict[str, Any], depth: int) -> dict[str, Any]:
    required = schema.get("required", [])
    members = {
        name: generate_value(random, member, schemas, depth + 1)
        for name, member in schema.get("properties", {}).items()
        if name in required or random.random() < 0.5
    }
    if isinstance(more := schema.get("additionalProperties"), dict):
        name = random.choice(("1", "a", *_TEXTS))
        members[name] = generate_value(random, more, schemas, depth + 1)
    return members


def _generate_array(random: Random, schema: dict[str, Any], schemas: dict[str, Any], depth: int) -> list[Any]:
    count = max(schema.get("minItems", 0), random.choice((0, 1, 1, 2)) if depth < 6 else 0)
    return [generate_value(random, schema.get("items") or {}, schemas, depth + 1) for _ in range(count)]


def _generate_integer(random: Random, schema: dict[str, Any], *_: object) -> int:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    return int(random.choice((low, low + 1, min(schema.get("maximum", 1_000), low + random.randrange(1_000)))))


def _generate_text(random: Random, schema: dict[str, Any], *_: object) -> str:
    if text := _FORMATS.get(schema.get("format", "")):
        return text
    candidates = [*schema.get("examples", []), *_TEXTS]
    pattern = schema.get("pattern", "").replace(r"\Z", "$")
    matching = [text for text in candidates if isinstance(text, str) and re.search(pattern, text)]
    return random.choice(matching or _TEXTS)


_FORMATS = {
    "date-time": "2026-11-11T00:00:00Z",
    "date": "2026-11-11",
    "time": "08:00:00",
    "uuid": "0192f7c5-0000-7000-8000-000000000001",
}
_GENERATORS: dict[str, Callable[..., Any]] = {
    "object": _generate_object,
    "array": _generate_array,
    "integer": _generate_integer,
    "number": lambda random, *_: random.choice((0.0, 1.5, 30.2, 120.1)),
    "boolean": lambda random, *_: random.random() < 0.5,
    "null": lambda *_: None,
    "string": _generate_text,
}


def replace_part(random: Random, document: Any) -> Any:
    """Return a copy of a JSON document in which one part is replaced, removed, doubled or added."""
    root = {"": json.loads(json.dumps(document))}
    holder: Any = root
    key: Any = ""
    while isinstance(holder[key], dict | list) and holder[key] and random.random() < 0.8:
        holder = holder[key]
        key = random.choice(list(holder)) if isinstance(holder, dict) else random.randrange(len(holder))
    part, change = holder[key], random.randrange(8)
    if change == 0 and key != "" and isinstance(holder, dict):
        del holder[key]
    elif change == 1 and isinstance(holder, list):
        holder.append(part)
    elif change == 2 and isinstance(part, dict):
        part[random.choice(("colour", "", "\ud800", "__proto__"))] = 1
    elif change == 3 and isinstance(part, str):
        at = random.randrange(len(part) + 1)
        holder[key] = part[:at] + random.choice(("\0", "\u200b", "\ud83d", "'", '"', "\n")) + part[at:]
    else:
        holder[key] = random.choice(UNEXPECTED)
    return root[""]


def damage_bytes(random: Random, content: bytes) -> bytes:
    """Return bytes of which some are cut off, changed, doubled or inserted."""
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(content) + 1)
        until = at + random.randrange(1, 12)
        content = random.choice(
            (
                content[:at],
                content[at:],
                content[:at] + random.randbytes(1) + content[at + 1 :],
                content[:at]
                + random.choice((b"\0", b'"', b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b","))
                + content[at:],
                content[:until] + content[at:],
            )
        )
    return content


def encode_document(random: Random, document: Any) -> bytes:
    """Encode a document as JSON, at times with the bytes damaged."""
    content = json.dumps(document, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    return damage_bytes(random, content) if random.random() < 0.15 else content


def vary(random: Random, make: Callable[[], Any]) -> Any:
    """Return a document of `make` with up to three parts replaced. Unchanged ones reach the business."""
    document = make()
    for _ in range(random.choice((0, 0, 0, 1, 1, 2, 3))):
        document = replace_part(random, document)
    return document
