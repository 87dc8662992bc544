"""Every mismatch of a refused body.

msgspec stops at the first, so this looks at the body once more, part by part.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec

_MAX_MISMATCHES = 20
_MAX_BODY_BYTES = 16_384
"""of a larger body only the first mismatch is named: a search of each part would delay other requests"""
_MAX_DEPTH = 20


class _Part(NamedTuple):
    """A value at a JSON pointer, and the type that it should have."""

    value: Any
    type: Any
    pointer: str


def list_mismatches(body: bytes, type_: Any) -> list[tuple[str, msgspec.ValidationError]]:
    """Return the mismatches of a body with the JSON pointers of their parts, at most twenty.

    An error may add a path within its part. The list is empty if the body is not JSON, or larger than 16 kB.
    """
    if len(body) > _MAX_BODY_BYTES:
        return []
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return []
    return list(islice(_iter_mismatches(_Part(value, type_, ""), 0), _MAX_MISMATCHES))


def _iter_mismatches(part: _Part, depth: int) -> Iterator[tuple[str, msgspec.ValidationError]]:
    try:
        msgspec.convert(part.value, part.type, str_keys=True)
        return
    except msgspec.ValidationError as error:
        mismatch = error
    is_inside = False
    if depth < _MAX_DEPTH:
        for inner in _iter_inner(part):
            for located in _iter_mismatches(inner, depth + 1):
                is_inside = True
                yield located
        for text in _wrong_members(part):
            is_inside = True
            yield part.pointer, msgspec.ValidationError(text)
    if not is_inside:  # it is the part as a whole
        yield part.pointer, mismatch


def _iter_inner(part: _Part) -> Iterator[_Part]:
    members, item_type = _describe(part.type)
    if members is not None and isinstance(part.value, dict):
        for name, (type_, _) in members.items():
            if name in part.value:
                yield _Part(part.value[name], type_, f"{part.pointer}/{name}")
    elif item_type is not None and isinstance(part.value, list):
        for number, item in enumerate(part.value):
            yield _Part(item, item_type, f"{part.pointer}/{number}")
    elif isinstance(part.value, dict) and (types := _key_and_value(part.type)) is not None:
        for key, value in part.value.items():
            yield _Part(value, types[1], f"{part.pointer}/{key.replace('~', '~0').replace('/', '~1')}")


def _wrong_members(part: _Part) -> Iterator[str]:
    """Yield msgspec's words for members that are missing or unknown, and for keys that are wrong."""
    members, _ = _describe(part.type)
    if isinstance(part.value, dict) and (types := _key_and_value(part.type)) is not None:
        for key in part.value:
            try:
                msgspec.convert({key: None}, dict[types[0], None], str_keys=True)  # type: ignore[valid-type]
            except msgspec.ValidationError as error:
                yield f"{key[:100]!r}: {error}"
    if members is None or not isinstance(part.value, dict):
        return
    for name, (_, is_required) in members.items():
        if is_required and name not in part.value:
            yield f"Object missing required field `{name}`"
    if _plain_type(part.type).__struct_config__.forbid_unknown_fields:
        for name in part.value.keys() - members.keys():
            yield f"Object contains unknown field `{name[:100]}`"


@lru_cache(maxsize=500)
def _describe(type_: Any) -> tuple[dict[str, tuple[Any, bool]] | None, Any]:
    """Return a struct's members as name → (type, is required), or the type of a list's items."""
    plain = _plain_type(type_)
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        fields = msgspec.structs.fields(plain)
        return {field.encode_name: (field.type, field.required) for field in fields}, None
    return None, get_args(plain)[0] if get_origin(plain) in (list, tuple) else None


def _key_and_value(type_: Any) -> tuple[Any, Any] | None:
    """Return the types of a dict's keys and values."""
    plain = _plain_type(type_)
    return get_args(plain)[:2] if get_origin(plain) is dict else None


def _plain_type(type_: Any) -> Any:
    """Return a type without its constraints, and without None if there is one other alternative."""
    while get_origin(type_) is Annotated:
        type_ = get_args(type_)[0]
    if get_origin(type_) in (Union, UnionType):
        others = [other for other in get_args(type_) if other not in (type(None), msgspec.UnsetType)]
        return _plain_type(others[0]) if len(others) == 1 else type_
    return type_
