"""The published articles in memory: lists, searches and suggestions.

They are ordered by text, links and what readers say.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from commerce.knowledge.model import (
    ArticleTerms,
    Audience,
    FoundArticle,
    PublishedArticle,
    ReadableArticle,
    SuggestionInput,
    Usage,
)
from commerce.knowledge.rendering import excerpt, render
from commerce.text_search.model import LANGUAGES, MAX_QUERY_CHARS, Hit, IndexedText, Language
from commerce.text_search.service import TextIndex, weigh_terms
from commerce.text_search.terms import detect_language

_RATING_SHARE, _RATING_PRIOR = 0.1, 10
"""Ratings move a score by 10 % at most; ten as many readers as have rated are taken to be undecided."""
_CLICK_SHARE, _CLICK_PRIOR = 0.05, 50
_REASON_SCORE, _SKU_SCORE, _MIN_TEXT_SCORE = 0.6, 0.6, 0.4
"""Scores of suggestions, where the best text has 1.

A text without links must have a part of that, so that few are suggested."""
CUSTOMERS: Sequence[Audience] = ("public",)
STAFF: Sequence[Audience] = ("public", "internal")
ArticleWeights = Mapping[Language, Mapping[str, float]]


class ArticleLinks(NamedTuple):
    """Codes by which articles are listed; empty ones do not restrict."""

    reason: str | None = None
    sku: str | None = None
    category: str | None = None


ANY_LINKS = ArticleLinks()


def weigh_article(article: PublishedArticle) -> ArticleWeights:
    """Return the terms of the article's texts. Call in a thread where others wait."""
    return {
        language: weigh_terms(
            IndexedText(published.text.title, "\n".join(published.text.search_words), published.text.body)
        )
        for language, published in article.texts.items()
    }


class ArticleIndex:
    """Published articles by id, and an index of the texts of each language."""

    def __init__(self) -> None:
        self._articles: dict[str, PublishedArticle] = {}
        self._ids: list[str] = []
        self._linked: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._indexes = {language: TextIndex() for language in LANGUAGES}
        self._usage: Mapping[str, Usage] = {}

    def put(self, article: PublishedArticle, weights: ArticleWeights) -> None:
        """Add an article with its weights, in the place of the one that has its id."""
        self.put_texts(article.article_id, weights)
        self.put_article(article.article_id, article)

    def remove(self, article_id: str) -> None:
        """Remove an article, if it is there."""
        self.put_texts(article_id, {})
        self.put_article(article_id, None)

    def put_texts(self, article_id: str, weights: ArticleWeights) -> None:
        """Index the texts of an article, in the place of those before. `put_article` must follow.

        Now and then it takes long. In a thread, no search may run meanwhile."""
        for language, index in self._indexes.items():
            if language in weights:
                index.put(article_id, weights[language])
            else:
                index.remove(article_id)

    def put_article(self, article_id: str, article: PublishedArticle | None) -> None:
        """Add an article whose texts are indexed, in the place of the one before; with None remove it."""
        before = self._articles.pop(article_id, None)
        if before is not None:
            self._ids.remove(article_id)
            for link in _list_links(before.terms):
                self._linked[link].discard(article_id)
        if article is not None:
            self._articles[article_id] = article
            insort(self._ids, article_id)
            for link in _list_links(article.terms):
                self._linked[link].add(article_id)

    def set_usage(self, usage: Mapping[str, Usage]) -> None:
        """Set clicks and ratings of all articles."""
        self._usage = usage

    def find(self, article_id: str, audiences: Sequence[Audience]) -> PublishedArticle | None:
        """Return an article that these readers may see."""
        article = self._articles.get(article_id)
        return article if article is not None and article.terms.audience in audiences else None

    def list_articles(
        self, after: str | None, size: int, language: Language, links: ArticleLinks, audiences: Sequence[Audience]
    ) -> list[FoundArticle]:
        """List articles of a language by id, at most `size`."""
        matches: list[FoundArticle] = []
        linked = self._find_linked(links)
        ids = self._ids if linked is None else sorted(linked)
        for article_id in ids[0 if after is None else bisect_right(ids, after) :]:
            article = self._articles[article_id]
            if language in article.texts and article.terms.audience in audiences:
                matches.append(_describe(article, language))
                if len(matches) >= size:
                    break
        return matches

    def _find_linked(self, links: ArticleLinks) -> set[str] | None:
        """Return the articles that have all of the codes; None if there are no codes."""
        wanted = [(kind, code) for kind, code in links._asdict().items() if code is not None]
        return set.intersection(*(self._linked.get(link, set()) for link in wanted)) if wanted else None

    def search(
        self,
        query: str,
        language: Language | None,
        audiences: Sequence[Audience],
        count: int,
        links: ArticleLinks = ANY_LINKS,
    ) -> list[FoundArticle]:
        """Return the best articles for a query, best first.

        Without `language` it is that of the query. Where nothing is found in it, the other one is searched too.
        """
        language, linked = language or detect_language(query), self._find_linked(links)
        for searched in (language, *(other for other in LANGUAGES if other != language)):
            hits = self._search(query, searched, audiences, count, linked)
            if hits:
                return [_describe(self._articles[hit.key], searched) for hit in hits]
        return []

    def suggest(self, situation: SuggestionInput, audiences: Sequence[Audience], count: int) -> list[FoundArticle]:
        """Return the best articles for a situation by its text, its reason and its products, best first."""
        text = (situation.text or "")[:MAX_QUERY_CHARS]
        language = situation.language or detect_language(text or "\u4e00")
        scores: defaultdict[str, float] = defaultdict(float)
        hits = self._search(text, language, audiences, count * 4) if text.strip() else []
        for hit in hits:
            scores[hit.key] = hit.score / hits[0].score
        of_reason = self._linked.get(("reason", situation.reason or ""), set())
        of_skus = set[str]().union(*(self._linked.get(("sku", sku), set()) for sku in situation.skus))
        for linked, score in ((of_reason, _REASON_SCORE), (of_skus, _SKU_SCORE)):
            for article_id in linked:
                article = self._articles[article_id]
                if language in article.texts and article.terms.audience in audiences:
                    scores[article_id] += score * self._factor(article_id)
        ranked = sorted((-score, article_id) for article_id, score in scores.items() if score >= _MIN_TEXT_SCORE)
        return [_describe(self._articles[article_id], language) for _, article_id in ranked[:count]]

    def _search(
        self,
        query: str,
        language: Language,
        audiences: Sequence[Audience],
        count: int,
        linked: Collection[str] | None = None,
    ) -> list[Hit]:
        def accepts(article_id: str) -> bool:
            is_linked = linked is None or article_id in linked
            return is_linked and self._articles[article_id].terms.audience in audiences

        return self._indexes[language].search(query, count, accepts=accepts, factor=self._factor)

    def _factor(self, article_id: str) -> float:
        """Return how much readers move an article's score: little, and less the fewer they are."""
        usage = self._usage.get(article_id)
        if usage is None:
            return 1.0
        rating = (usage.helped - usage.not_helped) / (usage.helped + usage.not_helped + _RATING_PRIOR)
        return 1 + _RATING_SHARE * rating + _CLICK_SHARE * usage.clicks / (usage.clicks + _CLICK_PRIOR)


def read_article(article: PublishedArticle, language: Language | None) -> ReadableArticle:
    """Return an article in a language, or in one that it has."""
    languages = [each for each in LANGUAGES if each in article.texts]
    chosen = language if language in article.texts else languages[0]
    assert chosen is not None
    published = article.texts[chosen]
    return ReadableArticle(
        article_id=article.article_id,
        language=chosen,
        languages=languages,
        version=published.version,
        title=published.text.title,
        body=published.text.body,
        html=render(published.text.body),
        published_at=published.published_at,
    )


def _describe(article: PublishedArticle, language: Language) -> FoundArticle:
    published = article.texts[language]
    return FoundArticle(
        article_id=article.article_id,
        language=language,
        version=published.version,
        title=published.text.title,
        excerpt=excerpt(published.text.body),
        published_at=published.published_at,
    )


def _list_links(terms: ArticleTerms) -> Iterator[tuple[str, str]]:
    """Yield the codes of an article, each with the member of `ArticleLinks` that it answers."""
    for kind, codes in (("reason", terms.reasons), ("sku", terms.skus), ("category", terms.categories)):
        for code in codes:
            yield kind, code
