"""Files that somebody may send as a picture to harm the shop.

Each has a name and the reasons for which it is refused."""

from __future__ import annotations

import gzip
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple

from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_SCRIPT = b"<script>alert(document.cookie)</script>"
_SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"


class HostileFile(NamedTuple):
    """A file, and the reasons of which one is given for its refusal."""

    name: str
    content: bytes
    reasons: tuple[str, ...]


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *extra: bytes, pixels: bytes | None = None) -> bytes:
    """Return a PNG that says it has a size; without `pixels` most of them are missing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(1_000) if pixels is None else pixels)
    return _PNG + b"".join((chunk(b"IHDR", header), *extra, chunk(b"IDAT", packed), chunk(b"IEND", b"")))


def whole(form: str, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    """Return a picture that is one."""
    written = BytesIO()
    generator = random.Random(1)
    image = Image.frombytes("RGB", size, bytes(generator.randrange(256) for _ in range(size[0] * size[1] * 3)))
    image.save(written, form, **options)
    return written.getvalue()


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a WebP of these chunks."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def make_hostile_files() -> list[HostileFile]:
    """Return at least 200 files."""
    makers = (_other_types, _bombs, _moving, _cut, _damaged, _polyglots, _metadata)
    return [HostileFile(*file) for make in makers for file in make()]


_File = tuple[str, bytes, tuple[str, ...]]


def _other_types() -> Iterator[_File]:
    """Files of other types, also with the first bytes of a picture, and names that are content."""
    zipped = BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10_000_000))
    gif = whole("GIF")
    files = {
        "empty": b"",
        "one byte": b"\xff",
        "SVG": _SVG,
        "SVG with a declaration": b"<?xml version='1.0'?>" + _SVG,
        "SVG packed": gzip.compress(_SVG),
        "SVG of billions of laughs": b"<!DOCTYPE svg [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><svg>&b;</svg>",
        "HTML": b"<!doctype html>" + _SCRIPT,
        "PHP": b"<?php system($_GET['c']); ?>",
        "JavaScript": b"alert(1)",
        "ZIP bomb": zipped.getvalue(),
        "gzip bomb": gzip.compress(bytes(20_000_000)),
        "GIF": gif,
        "GIF that is a script": b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)",
        "BMP": whole("BMP"),
        "TIFF": whole("TIFF"),
        "ICO": whole("ICO"),
        "PPM": whole("PPM"),
        "AVIF head": b"\x00\x00\x00\x20ftypavif" + bytes(500),
        "HEIC head": b"\x00\x00\x00\x18ftypheic" + bytes(500),
        "JPEG 2000 head": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(500),
        "Photoshop": b"8BPS\x00\x01" + bytes(500),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%id) (w) file\n",
        "PDF": b"%PDF-1.7\n" + _SCRIPT + b"\n%%EOF",
        "program": b"\x7fELF" + bytes(500),
        "Windows program": b"MZ" + bytes(500),
        "RIFF of sound": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(30),
        "text": b"PNG" * 100,
        "zeros": bytes(100_000),
        "path": b"../../../../etc/passwd\x00.png",
        "URL": b"http://169.254.169.254/latest/meta-data/",
        "MVG": b"viewbox 0 0 640 480\nfill 'url(https://example.com/image.jpg\"|ls \"-la)'",
        "XBM": b"#define a_width 1000000\n#define a_height 1000000\nstatic char a_bits[] = {0};",
        "FITS": b"SIMPLE  =                    T" + b" " * 2_850,
        "long text": b"\xef\xbb\xbf" + "图片".encode() * 10_000,
    }
    for name, content in files.items():
        yield name, content, ("unknown_type",)


def _bombs() -> Iterator[_File]:
    """Pictures of many pixels, in few bytes."""
    for width, height in (
        (10_000, 10_000),
        (100_000_000, 1),
        (1, 100_000_000),
        (60_000, 60_000),
        (2**31 - 1, 2**31 - 1),
    ):
        yield f"PNG of {width} x {height}", png(width, height, pixels=bytes(3_000_000)), ("too_many_pixels",)
    for mode in ("1", "L", "P"):
        written = BytesIO()
        Image.new(mode, (10_000, 10_000)).save(written, "PNG")
        yield f"whole PNG of 100 megapixels, {mode}", written.getvalue(), ("too_many_pixels",)
    written = BytesIO()
    Image.new("L", (10_000, 10_000)).save(written, "JPEG")
    yield "whole JPEG of 100 megapixels", written.getvalue(), ("too_many_pixels",)
    jpeg = whole("JPEG")
    at = jpeg.index(b"\xff\xc0")
    for width, height in ((65_535, 65_535), (10_001, 10_000)):
        head = jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]
        yield f"JPEG of {width} x {height}", head, ("too_many_pixels",)
    second = jpeg[: at + 5] + struct.pack(">HH", 65_535, 65_535) + jpeg[at + 9 :]
    yield "JPEG with a larger one after it", jpeg + second, ("too_many_pixels",)
    for width, height in ((0, 10), (10, 0)):
        yield f"PNG of {width} x {height}", png(width, height), ("unreadable",)
        head = jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]
        yield f"JPEG of {width} x {height}", head, ("unreadable",)
    size = struct.pack("<I", 16_382 | 16_382 << 14)
    yield "WebP, lossless, of 16383 x 16383", riff((b"VP8L", b"\x2f" + size + bytes(100))), ("too_many_pixels",)
    lossy = b"\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + bytes(100)
    yield "WebP, lossy, of 16383 x 16383", riff((b"VP8 ", lossy)), ("too_many_pixels",)
    canvas = b"\x00" * 4 + b"\xff\xff\xff" * 2
    yield "WebP of 16777216 x 16777216", riff((b"VP8X", canvas)), ("too_many_pixels",)
    yield "PNG within an icon", b"\x00\x00\x01\x00\x01\x00" + png(60_000, 60_000), ("unknown_type",)


def _moving() -> Iterator[_File]:
    """Pictures of many frames."""
    frames = [Image.new("P", (4, 4), number % 256) for number in range(10_000)]
    written = BytesIO()
    frames[0].save(written, "GIF", save_all=True, append_images=frames[1:])
    yield "GIF of 10,000 frames", written.getvalue(), ("unknown_type",)
    for form, count in (("PNG", 50), ("WEBP", 50)):
        written = BytesIO()
        colors = [Image.new("RGB", (4, 4), (number, 0, 0)) for number in range(count)]
        colors[0].save(written, form, save_all=True, append_images=colors[1:])
        yield f"{form} of {count} frames", written.getvalue(), ("moving",)
    yield "PNG that says it has 4 billion frames", png(4, 4, chunk(b"acTL", b"\xff" * 8)), ("moving",)
    yield "WebP with the mark of an animation", riff((b"VP8X", b"\x02" + bytes(9))), ("moving",)
    yield "WebP of a million frames", riff(*[(b"ANMF", b"")] * 100_000), ("moving",)


def _cut() -> Iterator[_File]:
    """Pictures that end too early."""
    for form in ("JPEG", "PNG", "WEBP"):
        content = whole(form)
        for part in (3, 8, 12, 20, 50, len(content) // 4, len(content) // 2, len(content) - 100, len(content) - 1):
            yield f"{form}, cut after {part} bytes", content[:part], ("unreadable", "unknown_type")
    progressive = whole("JPEG", progressive=True)
    for share in (3, 5, 8):
        yield f"JPEG, progressive, {share} tenths of it", progressive[: len(progressive) * share // 10], ("unreadable",)
    yield "PNG whose pixels are missing", png(2_000, 2_000), ("unreadable",)
    yield "JPEG without pixels", b"\xff\xd8\xff\xe0\x00\x04ab\xff\xd9", ("unreadable",)
    yield (
        "PNG without pixels",
        _PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)) + chunk(b"IEND", b""),
        ("unreadable",),
    )
    yield "WebP without pixels", riff((b"VP8X", bytes(10))), ("unreadable",)
    yield "RIFF that says it is longer", b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(50), ("unreadable",)


def _damaged() -> Iterator[_File]:
    """Pictures whose container holds something that is none of its pixels."""
    generator = random.Random(2)
    for number in range(20):
        noise = generator.randbytes(2_000)
        yield f"PNG of noise {number}", png(64, 48, pixels=None)[:41] + noise, ("unreadable",)
        yield f"JPEG of noise {number}", b"\xff\xd8\xff" + noise, ("unreadable", "hidden_content", "too_many_pixels")
    for number in range(10):
        lossless = b"\x2f" + struct.pack("<I", 63 | 47 << 14) + generator.randbytes(500)
        yield f"WebP of noise {number}", riff((b"VP8L", lossless)), ("unreadable",)
    yield "PNG of 20,000 empty chunks", png(4, 4, *[chunk(b"tEXt", b"")] * 20_000), ("unreadable",)
    yield "WebP of a million empty chunks", riff(*[(b"XXXX", b"")] * 1_000_000), ("unreadable",)
    yield "JPEG of 50,000 empty segments", b"\xff\xd8" + b"\xff\xe0\x00\x02" * 50_000 + b"\xff\xd9", ("unreadable",)
    yield "JPEG that only fills up", b"\xff\xd8" + b"\xff" * 1_000_000, ("unreadable",)
    yield "JPEG of entropy without end", whole("JPEG")[:-2] + b"\xff\x00" * 1_000_000, ("unreadable",)
    header = struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)
    yield (
        "PNG with a chunk of 2 GB",
        _PNG + chunk(b"IHDR", header) + b"\x7f\xff\xff\xffIDAT" + bytes(50),
        ("unreadable",),
    )
    yield "PNG with two heads", png(4, 4, chunk(b"IHDR", header)), ("unreadable",)
    yield "PNG with its head at the end", _PNG + chunk(b"IEND", b"") + chunk(b"IHDR", header), ("unreadable",)
    for depth, color in ((3, 2), (16, 3), (8, 7), (0, 0), (255, 255)):
        wrong = struct.pack(">IIBBBBB", 9, 9, depth, color, 0, 0, 0)
        content = _PNG + chunk(b"IHDR", wrong) + chunk(b"IDAT", zlib.compress(bytes(500))) + chunk(b"IEND", b"")
        yield f"PNG of depth {depth} and colour {color}", content, ("unreadable",)


def _polyglots() -> Iterator[_File]:
    """Pictures that are something else as well."""
    zipped = BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("Main.class", b"\xca\xfe\xba\xbe")
    tails = {
        "a ZIP archive": zipped.getvalue(),
        "a page": b"<html>" + _SCRIPT,
        "PHP": b"<?php phpinfo(); ?>",
        "a PDF": b"%PDF-1.4\n1 0 obj\n%%EOF",
        "a program": b"\x7fELF" + bytes(100),
        "a video": b"\x00\x00\x00\x18ftypmp42" + bytes(200),
        "one byte": b"\x01",
    }
    for form in ("JPEG", "PNG", "WEBP"):
        content = whole(form)
        for name, tail in tails.items():
            yield f"{form} with {name} after it", content + tail, ("hidden_content",)
            if name != "one byte":
                yield f"{name} with {form} after it", tail + content, ("unknown_type",)
    jpeg = whole("JPEG")
    for name, text in (("a script", _SCRIPT), ("PHP", b"<?php system('id'); ?>"), ("a page", b"<!DOCTYPE HTML><body>")):
        comment = b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text
        yield f"JPEG with {name} as its comment", jpeg[:2] + comment + jpeg[2:], ("hidden_content",)
        content = png(4, 4, chunk(b"tEXt", b"Comment\x00" + text), pixels=bytes(52))
        yield f"PNG with {name} as its text", content, ("hidden_content",)
        data = whole("WEBP")[20:]
        yield f"WebP with {name} in a chunk", riff((b"EXIF", text), (b"VP8 ", data)), ("hidden_content",)
    script = b"\xff\xd8\xff\xe0\x09\x3a" + b"\x00" * 2_360 + b"*/=alert(1)/*"
    yield "JPEG that is JavaScript", script, ("unreadable",)


def _metadata() -> Iterator[_File]:
    """Pictures with profiles and texts that grow when they are unpacked, or are too long."""
    large = zlib.compress(bytes(50_000_000), 9)
    pixels = bytes(52)
    yield (
        "PNG with a profile that grows",
        png(4, 4, chunk(b"iCCP", b"p\x00\x00" + large), pixels=pixels),
        ("unreadable",),
    )
    yield "PNG with a text that grows", png(4, 4, chunk(b"zTXt", b"t\x00\x00" + large), pixels=pixels), ("unreadable",)
    text = b"t\x00\x01\x00\x00\x00" + large
    yield "PNG with an international text that grows", png(4, 4, chunk(b"iTXt", text), pixels=pixels), ("unreadable",)
    small = chunk(b"zTXt", b"t\x00\x00" + zlib.compress(bytes(500_000), 9))
    yield "PNG with many texts that grow", png(4, 4, *[small] * 100, pixels=pixels), ("unreadable",)
    yield (
        "PNG with a text of 2 MB",
        png(4, 4, chunk(b"tEXt", b"t\x00" + b"x" * 2_000_000), pixels=pixels),
        ("unreadable",),
    )
    yield "PNG with a damaged text", png(4, 4, chunk(b"zTXt", b"t\x00\x00nothing"), pixels=pixels), ("unreadable",)
    yield "PNG with EXIF of 2 MB", png(4, 4, chunk(b"eXIf", bytes(2_000_000)), pixels=pixels), ("unreadable",)
    profile = riff((b"VP8X", b"\x20" + bytes(9)), (b"ICCP", bytes(2_000_000)), (b"VP8 ", whole("WEBP")[20:]))
    yield "WebP with a profile of 2 MB", profile, ("unreadable",)
