"""Refusals of training, each with what to do."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, Invalid, NotFound


class NoSuchQuiz(NotFound):
    title = "There is no such quiz"


class NoSuchAttempt(NotFound):
    title = "There is no such attempt, or it is not yours"


class ArticleOutdated(Conflict):
    """The article has another published version than the request names.

    `version` is the published one, if there is one."""

    code = "article_outdated"
    title = "The article has another version now"


class ReadingNeeded(Conflict):
    code = "reading_needed"
    title = "Read the article first"


class QuizNotReady(Conflict):
    code = "quiz_not_ready"
    title = "The quiz has no questions about the published version yet"


class AttemptOpen(Conflict):
    code = "attempt_open"
    title = "You have an open attempt of another quiz"


class AttemptExpired(Conflict):
    code = "attempt_expired"
    title = "The time of the attempt is over"


class AttemptsUsed(Conflict):
    """`until` is the end of the pause."""

    code = "attempts_used"
    title = "Your attempts are used up for now"


class UnreadableQuiz(Invalid):
    title = "The file is no quiz"
