"""Attempts of quizzes: begun, graded and kept. The right options stay here."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.text_search.model import Language
from commerce.training import store
from commerce.training.errors import (
    ArticleOutdated,
    AttemptExpired,
    AttemptOpen,
    AttemptsUsed,
    NoSuchAttempt,
    NoSuchQuiz,
    QuizNotReady,
    ReadingNeeded,
)
from commerce.training.model import (
    Attempt,
    DrawnQuestion,
    QuizQuestion,
    draw_questions,
    find_pause_end,
    find_wrong,
    has_passed,
)
from commerce.training.store import StoredAttempt, StoredQuiz


class QuizAttempts:
    """Attempts of quizzes by persons, over Postgres. A person has one open attempt at most."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids

    async def begin(self, person: str, roles: Collection[str], code: str, language: Language) -> Attempt:
        """Begin an attempt about the published version, or return the open one.

        Raises `NoSuchQuiz`, `ReadingNeeded`, `QuizNotReady`, `ArticleOutdated`, `AttemptOpen` or `AttemptsUsed`.
        """
        now = from_ms(self._clock.now_ms())
        async with self._db.transaction() as connection:
            await store.lock_person(connection, person)
            quiz = await store.get_quiz(connection, code)
            if quiz is None:
                raise NoSuchQuiz(f"there is no quiz {code}")
            version = await store.lock_published(connection, quiz.article_id, language)
            if version is None:
                raise ArticleOutdated(f"{quiz.article_id} is not published in {language}: choose another language")
            await store.end_expired(connection, person, now)
            open_attempt = await store.find_open(connection, person)
            if open_attempt is not None and open_attempt[1:] == (code, language, version):
                return await self._read(connection, open_attempt.attempt_id, person, now)
            if open_attempt is not None:
                await _end_if_outdated(connection, open_attempt)
            await _check_pause(connection, person, quiz, now)
            read = await store.list_acknowledgements(connection, person, [quiz.article_id])
            if (quiz.article_id, language, version) not in read:
                raise ReadingNeeded(
                    f"the quiz {code} is about version {version} of {quiz.article_id} in {language}: read and "
                    "acknowledge it, then begin"
                )
            attempt_id = await self._add(connection, person, roles, quiz, language, version, now)
            return await self._read(connection, attempt_id, person, now)

    async def _add(
        self,
        connection: Connection,
        person: str,
        roles: Collection[str],
        quiz: StoredQuiz,
        language: Language,
        version: int,
        now: datetime,
    ) -> UUID:
        last, terms = await store.find_questions(connection, quiz.code, language, version), quiz.terms
        if last is None or len(last[1]) < terms.questions:
            raise QuizNotReady(
                f"{quiz.code} has too few questions about version {version} of {quiz.article_id} in {language}: "
                "ask your lead to import them"
            )
        attempt_id, seed = self._ids.new(), secrets.randbits(63)
        values = (attempt_id, person, sorted(roles), quiz.code, language, version, last[0], seed)
        expires_at = now + timedelta(minutes=terms.minutes)
        await store.add_attempt(connection, *values, terms.questions, terms.pass_percent, now, expires_at)
        return attempt_id

    async def get(self, person: str, attempt_id: UUID) -> Attempt:
        """Read an attempt of a person. Raises `NoSuchAttempt`."""
        async with self._db.snapshot() as connection:
            return await self._read(connection, attempt_id, person, from_ms(self._clock.now_ms()))

    async def submit(self, person: str, attempt_id: UUID, answers: Sequence[Sequence[int]]) -> Attempt:
        """Grade the answers. A repeat, with whatever answers, returns the first result.

        Raises `NoSuchAttempt`, `AttemptExpired`, `Invalid` for answers to other questions, or `ArticleOutdated` if
        the article has a new version.
        """
        now = from_ms(self._clock.now_ms())
        async with self._db.transaction() as connection:
            await store.lock_person(connection, person)
            attempt = await _get(connection, attempt_id, person)
            if attempt.status == "submitted":
                return await self._read(connection, attempt_id, person, now)
            version = await store.lock_published(connection, attempt.article_id, attempt.language)
            if attempt.status == "outdated" or version != attempt.article_version:
                raise ArticleOutdated(
                    f"the attempt is about version {attempt.article_version} of {attempt.article_id}, which is no "
                    "longer published: read and acknowledge the published one, and begin again; this attempt does "
                    "not count",
                    version=version,
                )
            if attempt.status == "expired" or attempt.expires_at <= now:
                raise AttemptExpired(f"the attempt ended at {attempt.expires_at.isoformat()}; begin another one")
            drawn = await _draw(connection, attempt)
            _check_answers(drawn, answers)
            wrong = find_wrong(drawn, answers)
            is_passed = has_passed(len(drawn) - len(wrong), attempt.question_count, attempt.pass_percent)
            until = now + timedelta(days=attempt.valid_days) if is_passed else None
            await store.submit_attempt(connection, attempt_id, answers, wrong, until, now)
            return await self._read(connection, attempt_id, person, now)

    async def _read(self, connection: Connection, attempt_id: UUID, person: str, now: datetime) -> Attempt:
        attempt = await _get(connection, attempt_id, person)
        status = "expired" if attempt.status == "open" and attempt.expires_at <= now else attempt.status
        drawn = await _draw(connection, attempt) if status == "open" else []
        return Attempt(
            attempt_id=attempt.attempt_id,
            code=attempt.code,
            article_id=attempt.article_id,
            language=attempt.language,
            article_version=attempt.article_version,
            status=status,
            begun_at=attempt.begun_at,
            expires_at=attempt.expires_at,
            submitted_at=attempt.submitted_at,
            question_count=attempt.question_count,
            pass_percent=attempt.pass_percent,
            questions=[
                DrawnQuestion(number, question.text, question.kind, question.options)
                for number, question in enumerate(drawn, 1)
            ],
            right_count=None if attempt.wrong is None else attempt.question_count - len(attempt.wrong),
            wrong=attempt.wrong or [],
            is_passed=attempt.is_passed,
            certificate_until=attempt.certificate_until,
        )


async def _get(connection: Connection, attempt_id: UUID, person: str) -> StoredAttempt:
    attempt = await store.get_attempt(connection, attempt_id, person)
    if attempt is None:
        raise NoSuchAttempt(f"there is no attempt {attempt_id} of yours")
    return attempt


async def _draw(connection: Connection, attempt: StoredAttempt) -> list[QuizQuestion]:
    return draw_questions(await store.get_revision(connection, attempt), attempt.question_count, attempt.seed)


async def _end_if_outdated(connection: Connection, attempt: store.OpenAttempt) -> None:
    """End an open attempt about a version that is no longer published. Raises `AttemptOpen` for others."""
    quiz = await store.get_quiz(connection, attempt.code)
    assert quiz is not None  # the attempt refers to it
    if await store.lock_published(connection, quiz.article_id, attempt.language) == attempt.article_version:
        raise AttemptOpen(
            f"your attempt {attempt.attempt_id} of the quiz {attempt.code} in {attempt.language} is open: "
            "submit it first"
        )
    await store.end_outdated(connection, attempt.attempt_id)


async def _check_pause(connection: Connection, person: str, quiz: StoredQuiz, now: datetime) -> None:
    """Raise `AttemptsUsed` if a person must pause."""
    until = find_pause_end(await store.list_failures(connection, person, quiz.code), quiz.terms, now)
    if until is not None:
        raise AttemptsUsed(
            f"you have failed {quiz.terms.attempts} times: read {quiz.article_id} again, and begin after "
            f"{until.isoformat()}",
            until=until.isoformat(),
        )


def _check_answers(drawn: Sequence[QuizQuestion], answers: Sequence[Sequence[int]]) -> None:
    """Check that each question has an answer that it can have.

    An empty one is wrong and no mistake of form."""
    errors = []
    if len(answers) != len(drawn):
        errors.append({"pointer": "/answers", "detail": f"send {len(drawn)} answers, one for each question"})
    for place, (question, answer) in enumerate(zip(drawn, answers, strict=False)):
        if len(set(answer)) < len(answer) or any(number > len(question.options) for number in answer):
            detail = f"name options from 1 to {len(question.options)}, each once"
        elif question.kind == "single" and len(answer) > 1:
            detail = "name one option"
        else:
            continue
        errors.append({"pointer": f"/answers/{place}", "detail": detail})
    if errors:
        raise Invalid(f"the answers do not fit the questions: {errors[0]['detail']}", errors=errors)
