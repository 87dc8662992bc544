"""Reads pictures of customers and writes them again, so that only pixels are kept.

The format is judged by content, whatever the upload says. Nothing is decoded before its size in pixels is known.
"""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO
from typing import NamedTuple

from commerce.kernel.errors import NotAPicture
from commerce.kernel.optional import require_extra

FORMATS = ("JPEG", "PNG", "WEBP")
_QUALITY = 85
_NOT_ONE = "cannot store the picture: it is no readable JPEG, PNG or WebP; send another file"


class Picture(NamedTuple):
    """A picture that was written again as JPEG."""

    content: bytes
    width_px: int
    height_px: int

    @property
    def sha256(self) -> bytes:
        return sha256(self.content).digest()


def rewrite_picture(content: bytes, max_pixels: int, max_side_px: int) -> Picture:
    """Decode a picture and encode it as JPEG, upright and without metadata.

    No side is longer than `max_side_px`. Blocks for as long as that takes. Raises `NotAPicture` for anything else, and
    for more than `max_pixels` before they are decoded; `NotReady` if Pillow is not installed."""
    require_extra("store pictures", "aftersales", "PIL")
    from PIL import Image, ImageOps  # noqa: PLC0415  # an extra

    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit only warns; ours refuses
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise NotAPicture(
                    f"cannot store the picture: it has {width} x {height} pixels, more than {max_pixels}; "
                    "send a smaller one"
                )
            image.draft("RGB", (max_side_px, max_side_px))  # a JPEG is decoded at a fraction of its size
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((max_side_px, max_side_px))
            pixels = Image.new("RGB", upright.size, "white")
            rgba = upright.convert("RGBA")
            pixels.paste(rgba, mask=rgba.getchannel("A"))
    except NotAPicture:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, ArithmeticError, LookupError, TypeError, MemoryError) as error:
        raise NotAPicture(_NOT_ONE) from error
    written = BytesIO()
    pixels.save(written, "JPEG", quality=_QUALITY, optimize=True)
    return Picture(written.getvalue(), *pixels.size)
