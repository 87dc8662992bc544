"""Articles, their versions in each language, and what readers find."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

import msgspec

from commerce.catalog.model import Sku
from commerce.kernel.moments import Day, WithMoments
from commerce.kernel.types import CONTROL, MARKDOWN, filled_line, message_text
from commerce.text_search.model import Language, SearchQuery

MAX_ARTICLES = 10_000
MAX_BODY_CHARS = 50_000
MAX_SUGGEST_CHARS = 5_000
RESERVED_IDS = frozenset({"suggest"})
"""Parts of other paths."""

Audience = Literal["public", "internal"]
ArticleStatus = Literal["draft", "in_review", "published", "retired"]
Vote = Literal["click", "feedback"]
ArticleId = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z", description="the article's name in URLs", examples=["return-a-product"]
    ),
]
Code = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{1,64}\Z")]
Title = Annotated[str, filled_line(200)]
SearchWord = Annotated[str, filled_line(100)]
Body = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=MAX_BODY_CHARS,
        pattern=MARKDOWN,
        description="Markdown; HTML in it is shown as text",
        extra_json_schema={"pattern": rf"[^{CONTROL}\x20]"},
    ),
]
VersionNo = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class ArticleTerms(WithMoments, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Terms of an article in all its languages: readers, owner, day of the next review, subjects.

    The audience changes only while no version is published."""

    audience: Audience
    owner: Annotated[str, filled_line(200)]
    review_by: Day
    reasons: Annotated[list[Code], msgspec.Meta(max_length=50)] = msgspec.field(default_factory=list)
    skus: Annotated[list[Sku], msgspec.Meta(max_length=1000)] = msgspec.field(default_factory=list)
    categories: Annotated[list[Code], msgspec.Meta(max_length=50)] = msgspec.field(default_factory=list)


class ArticleInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An article to create, or with the `version` that was read to change."""

    terms: ArticleTerms
    version: VersionNo | None = None


class ArticleText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The text of a version, which never changes."""

    title: Title
    search_words: Annotated[list[SearchWord], msgspec.Meta(max_length=50)] = msgspec.field(default_factory=list)
    body: Body


class VersionInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new version of an article in a language. It takes the place of one that is not published yet."""

    language: Language
    text: ArticleText


class VersionStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version whose status is to change."""

    language: Language
    version: VersionNo


class VersionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A version without its text."""

    language: Language
    version: int
    status: ArticleStatus
    title: str
    author: str
    created_at: datetime
    reviewer: str | None
    published_at: datetime | None
    retired_by: str | None
    retired_at: datetime | None


class Article(msgspec.Struct, frozen=True, kw_only=True):
    """An article as staff see it, with its versions that are not retired; `get` has all of them.

    `version` counts the changes of the article, not of a text."""

    article_id: str
    version: int
    terms: ArticleTerms
    changed_at: datetime
    changed_by: str
    clicks: int
    helped: int
    not_helped: int
    versions: list[VersionSummary]


class ArticleVersion(msgspec.Struct, frozen=True):
    """A version with its text, and with the HTML that readers get."""

    article_id: str
    summary: VersionSummary
    text: ArticleText
    html: str


class PublishedText(msgspec.Struct, frozen=True):
    """The published version of a language."""

    version: int
    published_at: datetime
    text: ArticleText


class PublishedArticle(msgspec.Struct, frozen=True):
    """An article with its published texts, at least one."""

    article_id: str
    terms: ArticleTerms
    texts: dict[Language, PublishedText]


class FoundArticle(msgspec.Struct, frozen=True, kw_only=True):
    """An article in a list or among what a search found. `excerpt` is the beginning of its text."""

    article_id: str
    language: Language
    version: int
    title: str
    excerpt: str
    published_at: datetime


class ReadableArticle(msgspec.Struct, frozen=True, kw_only=True):
    """A published article in one language, as Markdown and as safe HTML.

    `languages` lists those that it has."""

    article_id: str
    language: Language
    languages: list[Language]
    version: int
    title: str
    body: str
    html: str
    published_at: datetime


class SuggestionInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The situation for which articles are sought. Of a long text the beginning counts."""

    reason: Code | None = None
    skus: Annotated[list[Sku], msgspec.Meta(max_length=100)] = msgspec.field(default_factory=list)
    text: Annotated[str, message_text(MAX_SUGGEST_CHARS)] | None = None
    language: Language | None = None


class FeedbackInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to the question whether an article helped.

    With the `query` that found it, an article that did not help is listed among the searches that found nothing."""

    helped: bool
    query: SearchQuery | None = None


class MissedSearch(msgspec.Struct, frozen=True):
    """A search that found nothing, normalised, with how often and when it was last made."""

    language: Language
    query: str
    searches: int
    first_at: datetime
    searched_at: datetime


class Usage(msgspec.Struct, frozen=True):
    """Counts of an article: opened from a search, helped, did not help."""

    clicks: int = 0
    helped: int = 0
    not_helped: int = 0


class OverdueArticles(msgspec.Struct, frozen=True):
    """The number of published articles past the day of their review, and the earliest such day."""

    count: int
    earliest: date | None
