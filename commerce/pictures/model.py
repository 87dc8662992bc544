"""Pictures of products, and their imports."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.languages import MAX_LANGUAGES, LanguageTag
from commerce.kernel.types import filled_line

SIZES = (256, 512, 1024, 2048)
"""largest width and height in pixels of the files of a picture"""
MEDIA_TYPE = "image/webp"

Digest = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z", description="SHA-256 of the file that was sent, in hexadecimal")
]
PictureSize = Literal["256", "512", "1024", "2048"]
PictureUrl = Annotated[
    str,
    msgspec.Meta(
        min_length=10,
        max_length=2_000,
        pattern=r"^https?://[!-~]+\Z",
        description="http or https, on the public internet; redirects are not followed",
        examples=["https://example.com/picture.jpg"],
    ),
]
AltText = Annotated[str, filled_line(300)]
AltTexts = Annotated[dict[LanguageTag, AltText], msgspec.Meta(max_length=MAX_LANGUAGES)]
RefusalReason = Literal[
    "unknown_type",
    "unreadable",
    "too_large",
    "too_many_pixels",
    "moving",
    "hidden_content",
    "too_costly",
    "address_not_public",
    "bad_url",
    "redirect",
    "not_found",
    "no_answer",
    "file_missing",
]
"""`hidden_content`: the file is something else, too; `too_costly`: it takes too much time or memory"""


class PictureFile(msgspec.Struct, frozen=True):
    """A picture in one size: WebP, which never changes under its URL."""

    size: int
    url: str
    width_px: int
    height_px: int


class ProductPicture(msgspec.Struct, frozen=True):
    """A picture of a product. `files` has it in each size, the smallest first."""

    digest: Digest
    alt_texts: AltTexts
    files: list[PictureFile]


class PublicPicture(msgspec.Struct, frozen=True):
    """A picture of a product as customers see it. `files` has it in each size, the smallest first.

    `alt_text` says what it shows, in one language; null if nobody has written that."""

    alt_text: str | None
    files: list[PictureFile]


class PictureImport(msgspec.Struct, frozen=True):
    """A picture that was uploaded or named by URL. While it is `pending` its product does not have it yet."""

    import_id: UUID
    product_id: str
    status: Literal["pending", "stored", "refused"]
    url: str | None
    digest: Digest | None
    reason: RefusalReason | None
    detail: str | None
    created_at: datetime
    created_by: str


class PicturesOfProduct(msgspec.Struct, frozen=True):
    """All pictures of a product, the cover first, and imports that have not ended or were refused."""

    pictures: list[ProductPicture]
    imports: list[PictureImport]


class PictureSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A picture to fetch."""

    url: PictureUrl
    alt_texts: AltTexts = msgspec.field(default_factory=dict)


class AltTextInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By language: what a picture shows, for those who do not see it. Other languages lose their text."""

    alt_texts: AltTexts


class PictureOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All pictures of a product in their new sequence, the cover first."""

    digests: Annotated[list[Digest], msgspec.Meta(min_length=1, max_length=1_000)]


class Rendered(NamedTuple):
    """A file of a picture in one size."""

    size: int
    content: bytes
    width_px: int
    height_px: int

    @property
    def sha256(self) -> bytes:
        return sha256(self.content).digest()


class RenderReply(msgspec.Struct, frozen=True):
    """The answer of the process that renders: files, or why the picture is refused."""

    pictures: list[Rendered] = []
    refused: str = ""
    reason: str = "unreadable"


def file_url(digest: str, size: int) -> str:
    """Return the path under which a file is served."""
    return f"/v1/pictures/{digest}/{size}.webp"
