"""Problems of articles, each with what to do."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, Invalid, NotFound


class NoSuchArticle(NotFound):
    title = "There is no such article"


class ArticleVersionConflict(Conflict):
    """Somebody changed the article since it was read. `version` is the present one."""

    code = "version_conflict"
    title = "The article has changed since you read it"


class ArticleStatusConflict(Conflict):
    """The status of an article's version does not allow the change."""

    code = "article_status"
    title = "The status of this version does not allow this"


class ReviewerIsAuthor(Conflict):
    code = "reviewer_is_author"
    title = "Somebody else than the author must publish this"


class TooManyArticles(Conflict):
    code = "too_many_articles"
    title = "The shop has as many articles as it can have"


class UnreadableArticle(Invalid):
    """A file that is no article. The text names the line or the key."""

    title = "The file is no article"


class UnreadableQuestions(Invalid):
    title = "The file has no questions that can be evaluated"
