"""Reads pictures and writes them again, so that only pixels are kept.

The format is judged by content, whatever the upload says. Nothing is decoded before its size in pixels is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from commerce.kernel.errors import NotAPicture
from commerce.kernel.optional import require_extra

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP")
_QUALITY = 85
_WEBP_QUALITY, _WEBP_EFFORT = 82, 4
_ICC_BYTES = 1 << 20
_NOT_ONE = "cannot store the picture: it is no readable JPEG, PNG or WebP; send another file"


class Picture(NamedTuple):
    """A picture that was written again."""

    content: bytes
    width_px: int
    height_px: int

    @property
    def sha256(self) -> bytes:
        return sha256(self.content).digest()


def check_pixels(width_px: int, height_px: int, max_pixels: int) -> None:
    """Raises `NotAPicture` if a picture has too many pixels, or none."""
    if width_px < 1 or height_px < 1:
        raise NotAPicture(_NOT_ONE)
    if width_px * height_px > max_pixels:
        raise NotAPicture(
            f"cannot store the picture: it has {width_px} x {height_px} pixels, more than {max_pixels}; "
            "send a smaller one",
            "too_many_pixels",
        )


def rewrite_picture(content: bytes, max_pixels: int, max_side_px: int) -> Picture:
    """Decode a picture and encode it as JPEG, upright, on white and without metadata.

    No side is longer than `max_side_px`. Blocks for as long as that takes. Raises `NotAPicture` for anything else, and
    for more than `max_pixels` before they are decoded; `NotReady` if Pillow is not installed."""
    with _decode(content, max_pixels, max_side_px) as upright:
        from PIL import Image  # noqa: PLC0415  # an extra

        pixels = Image.new("RGB", upright.size, "white")
        rgba = upright.convert("RGBA")
        pixels.paste(rgba, mask=rgba.getchannel("A"))
    written = BytesIO()
    pixels.save(written, "JPEG", quality=_QUALITY, optimize=True)
    return Picture(written.getvalue(), *pixels.size)


def render_sizes(content: bytes, max_pixels: int, sides_px: Sequence[int]) -> list[Picture]:
    """Decode a picture and encode it as WebP in several sizes, upright, in sRGB and without metadata.

    Each has no side longer than the one of `sides_px`, and none is larger than the original. Blocks and raises as
    `rewrite_picture` does."""
    pictures = []
    with _decode(content, max_pixels, max(sides_px)) as upright:
        pixels = _to_srgb(upright)
        for side_px in sorted(sides_px, reverse=True):  # each from the one before, which is quicker
            pixels.thumbnail((side_px, side_px), reducing_gap=None)
            written = BytesIO()
            pixels.save(written, "WEBP", quality=_WEBP_QUALITY, method=_WEBP_EFFORT, exact=False, icc_profile=None)
            pictures.append(Picture(written.getvalue(), *pixels.size))
    return pictures[::-1]


@contextmanager
def _decode(content: bytes, max_pixels: int, max_side_px: int) -> Iterator[Image]:
    """Yield a decoded picture, upright, with no side longer than `max_side_px`. What fails is no picture."""
    require_extra("store pictures", "aftersales", "PIL")
    from PIL import Image, ImageOps  # noqa: PLC0415  # an extra

    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit only warns; ours refuses
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            check_pixels(*image.size, max_pixels)
            image.draft("RGB", (max_side_px, max_side_px))  # a JPEG is decoded at a fraction of its size
            scaled = image.convert("RGBA") if image.mode in ("P", "PA", "1") else image  # so that it can be smoothed
            scaled.thumbnail((max_side_px, max_side_px))
            yield ImageOps.exif_transpose(scaled)  # after it was scaled: turning makes a copy
    except NotAPicture:
        raise
    except MemoryError as error:
        raise NotAPicture(
            "cannot store the picture: it needs too much memory; send a smaller one", "too_costly"
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError, ArithmeticError, LookupError, TypeError) as error:
        raise NotAPicture(_NOT_ONE) from error


def _to_srgb(image: Image) -> Image:
    """Convert a picture to RGB or RGBA. Its colours follow its profile if that can be read."""
    from PIL import ImageCms  # noqa: PLC0415  # an extra

    has_alpha = "A" in image.getbands() or "transparency" in image.info
    profile = image.info.get("icc_profile")
    if profile and len(profile) <= _ICC_BYTES and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = None  # a damaged profile changes no colour
        if converted is not None:
            return converted
    return image.convert("RGBA" if has_alpha else "RGB")
