"""Walks through the container of a picture without decoding anything: JPEG, PNG, WebP.

A picture is refused that ends before its file does, or after it: what follows a picture may be read as something else
(a ZIP archive, a page, a script). Formats: ITU-T T.81 annex B; https://www.w3.org/TR/png-3/;
https://developers.google.com/speed/webp/docs/riff_container.
"""

from __future__ import annotations

import re
import struct
import zlib
from struct import unpack_from

from commerce.kernel.errors import NotAPicture
from commerce.kernel.pictures import check_pixels

_PNG, _RIFF, _WEBP, _JPEG = b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP", b"\xff\xd8\xff"
_MAX_PARTS = 10_000
"""chunks or segments of a file"""
_MAX_TEXT_BYTES = 1 << 20
"""of one chunk that holds no pixels, and of all compressed ones of a file, inflated"""
_MAX_JPEG_IMAGES = 10
"""cameras put previews after a picture, as pictures of their own"""
_PNG_COMPRESSED = {b"iCCP", b"zTXt", b"iTXt"}
_SLICE_BYTES = 1 << 20
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""the next marker in entropy-coded data, in which 0xFF is followed by 0 or a restart"""
_EOI, _SOS = 0xD9, 0xDA
_JPEG_TEXTS = {0xFE, *range(0xE0, 0xF0)}
"""comments and what applications add"""
_SIZE_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_MARKUP = re.compile(rb"<\s*(?:script|html|iframe|\?php|!doctype)|javascript:", re.IGNORECASE)


def check_container(content: bytes, max_pixels: int) -> None:
    """Check that a file is one picture and nothing else. Reads each part's head, and decodes no pixel.

    Raises `NotAPicture` with a reason: `unknown_type`, `unreadable`, `too_many_pixels`, `moving`, `hidden_content`."""
    try:
        if content.startswith(_PNG):
            _check_png(content, max_pixels)
        elif content.startswith(_JPEG):
            _check_jpeg(content, max_pixels)
        elif content[:4] == _RIFF and content[8:12] == _WEBP:
            _check_webp(content, max_pixels)
        else:
            raise NotAPicture(
                "cannot store the picture: its content is not that of a JPEG, PNG or WebP; send one of these",
                "unknown_type",
            )
    except (struct.error, IndexError, zlib.error) as error:
        raise _unreadable("it is cut off or damaged") from error


def _check_png(content: bytes, max_pixels: int) -> None:
    offset, kind, text_bytes = len(_PNG), b"", 0
    for number in range(_MAX_PARTS):
        length, kind = unpack_from(">I4s", content, offset)
        data = memoryview(content)[offset + 8 : offset + 8 + length]
        offset += 12 + length
        if offset > len(content):
            raise _unreadable("it is cut off")
        if (number == 0) != (kind == b"IHDR"):
            raise _unreadable("its chunks have a wrong sequence")
        if kind == b"IHDR":
            width_px, height_px = unpack_from(">II", data)
            check_pixels(width_px, height_px, max_pixels)
        elif kind == b"acTL":
            raise _moving()
        elif kind in _PNG_COMPRESSED:
            text_bytes += _count_inflated(kind, bytes(data), _MAX_TEXT_BYTES - text_bytes)
        if kind not in (b"IDAT", b"PLTE"):
            _check_markup(data)
        if kind == b"IEND":
            break
    else:
        raise _unreadable("it has too many chunks")
    if offset != len(content):
        raise _hidden()


def _count_inflated(kind: bytes, data: bytes, max_bytes: int) -> int:
    """Inflate the compressed part of a chunk, if it has one. Raises `NotAPicture` if that is too much."""
    packed = data.partition(b"\x00")[2][1:]  # after a name and a method
    if kind == b"iTXt":
        if not data.partition(b"\x00")[2].startswith(b"\x01"):
            return 0
        packed = packed[1:].split(b"\x00", 2)[2]
    inflated = len(zlib.decompressobj().decompress(packed, max_bytes + 1))
    if inflated > max_bytes:
        raise _unreadable("its metadata are too large when they are unpacked")
    return inflated


def _check_jpeg(content: bytes, max_pixels: int) -> None:
    offset = _check_jpeg_image(content, 0, max_pixels)
    for _ in range(_MAX_JPEG_IMAGES):
        if not content.startswith(_JPEG, offset):
            break
        offset = _check_jpeg_image(content, offset, max_pixels)
    if content[offset:].strip(b"\x00"):
        raise _hidden()


def _check_jpeg_image(content: bytes, offset: int, max_pixels: int) -> int:
    """Walk through one image from its start to its end, and return the offset after it."""
    offset, has_size = offset + 2, False
    for _ in range(_MAX_PARTS):
        offset = _skip_to_jpeg_marker(content, offset)
        marker = content[offset + 1]
        if marker == _EOI:
            if not has_size:
                raise _unreadable("it has no size")
            return offset + 2
        (length,) = unpack_from(">H", content, offset + 2)
        segment = memoryview(content)[offset + 4 : offset + 2 + length]
        if len(segment) != length - 2:
            raise _unreadable("it is cut off")
        if marker in _SIZE_MARKERS:
            height_px, width_px = unpack_from(">HH", segment, 1)
            check_pixels(width_px, height_px, max_pixels)
            has_size = True
        elif marker in _JPEG_TEXTS:
            _check_markup(segment)
        offset += 2 + length
        if marker == _SOS:
            offset = _find_jpeg_marker(content, offset)
    raise _unreadable("it has too many segments")


def _skip_to_jpeg_marker(content: bytes, offset: int) -> int:
    """Return where a segment begins, after bytes that fill up."""
    if content[offset] != 0xFF:
        raise _unreadable("a segment does not end where it says")
    while content[offset + 1] == 0xFF:
        offset += 1
    return offset


def _find_jpeg_marker(content: bytes, offset: int) -> int:
    """Return where the next segment begins after entropy-coded data."""
    for start in range(offset, len(content), _SLICE_BYTES):  # other threads go on between slices
        if match := _JPEG_MARKER.search(content, start, start + _SLICE_BYTES + 1):
            return match.start()
    raise _unreadable("it is cut off")


def _check_webp(content: bytes, max_pixels: int) -> None:
    (length,) = unpack_from("<I", content, 4)
    end, offset, has_pixels = 8 + length, 12, False
    if end > len(content):
        raise _unreadable("it is cut off")
    if content[end:] not in (b"", b"\x00"):
        raise _hidden()
    for _ in range(_MAX_PARTS):
        if offset >= end:
            break
        kind, length = unpack_from("<4sI", content, offset)
        data = memoryview(content)[offset + 8 : offset + 8 + length]
        offset += 8 + length + length % 2
        if offset > end + 1:
            raise _unreadable("it is cut off")
        has_pixels |= _check_webp_chunk(kind, data, max_pixels)
    if not has_pixels or offset < end:
        raise _unreadable("it has no pixels, or too many chunks")


def _check_webp_chunk(kind: bytes, data: memoryview, max_pixels: int) -> bool:
    """Check a chunk, and tell whether it holds pixels."""
    if kind in (b"ANIM", b"ANMF") or (kind == b"VP8X" and data[0] & 0x02):
        raise _moving()
    if kind == b"VP8X":
        width_px, height_px = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (4, 7))
    elif kind == b"VP8 ":
        width_px, height_px = (side & 0x3FFF for side in unpack_from("<HH", data, 6))
    elif kind == b"VP8L":
        (bits,) = unpack_from("<I", data, 1)
        width_px, height_px = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        if kind != b"ALPH":
            _check_markup(data)
        return False
    check_pixels(width_px, height_px, max_pixels)
    return kind != b"VP8X"


def _check_markup(data: memoryview) -> None:
    if len(data) > _MAX_TEXT_BYTES:
        raise _unreadable("its metadata are too large")
    if _MARKUP.search(data):
        raise _hidden()


def _unreadable(reason: str) -> NotAPicture:
    return NotAPicture(f"cannot store the picture: {reason}; send another file", "unreadable")


def _moving() -> NotAPicture:
    return NotAPicture("cannot store the picture: it moves; send one that has a single frame", "moving")


def _hidden() -> NotAPicture:
    return NotAPicture(
        "cannot store the picture: its file holds something else as well, such as a page, a script or an archive; "
        "export the picture again, and send that",
        "hidden_content",
    )
