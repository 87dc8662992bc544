"""Cursors of searches: the place of the last hit, bound to the search that they continue."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict
from hashlib import blake2b
from math import isfinite

import msgspec

from commerce.product_search.errors import CursorOutdated
from commerce.product_search.model import SearchPosition, SearchTerms

MAX_CURSOR_CHARS = 200
_MAX_KEY, _MAX_NO = 2.0**62, 2**31 - 1
_UNBOUND = ("after", "limit", "available", "with_facets")
"""terms that may differ from page to page"""


def encode_cursor(terms: SearchTerms, position: SearchPosition) -> str:
    """Return the cursor of the page after a position."""
    return urlsafe_b64encode(msgspec.msgpack.encode((_digest(terms), *position))).decode().rstrip("=")


def decode_cursor(terms: SearchTerms, cursor: str) -> SearchPosition:
    """Return the position of a cursor. Raises `CursorOutdated` if it is none of this search."""
    try:
        content = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        digest, index_name, key, product_no = msgspec.msgpack.decode(content, type=tuple[bytes, str, float, int])
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise CursorOutdated("cannot read the cursor; send `next` of a page as it is") from None
    if digest != _digest(terms) or not isfinite(key) or abs(key) > _MAX_KEY or not 0 <= product_no <= _MAX_NO:
        raise CursorOutdated("cannot continue the list: the cursor is of another search; read its first page")
    return SearchPosition(index_name, key, product_no)


def _digest(terms: SearchTerms) -> bytes:
    values = {name: value for name, value in asdict(terms).items() if name not in _UNBOUND}
    return blake2b(msgspec.json.encode(values, order="sorted"), digest_size=8).digest()
