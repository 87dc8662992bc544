"""Rows of required readings, quizzes and attempts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.text_search.model import Language
from commerce.training.model import (
    AttemptStatus,
    Certificate,
    QuizQuestion,
    QuizTerms,
    RequiredReading,
)

_TERMS = QuizTerms.__struct_fields__
_CERTIFICATE = tuple(name for name in Certificate.__struct_fields__ if name != "is_valid")
_questions_decoder = msgspec.json.Decoder(list[QuizQuestion])


class StoredQuiz(NamedTuple):
    """A quiz without its versions."""

    code: str
    article_id: str
    terms: QuizTerms
    changed_at: datetime
    changed_by: str


class StoredVersion(NamedTuple):
    """The last questions about a version, counted."""

    code: str
    language: Language
    article_version: int
    revision: int
    questions: int
    created_at: datetime


class StoredText(NamedTuple):
    """A published version of an article."""

    article_id: str
    language: Language
    version: int
    title: str


class OpenAttempt(NamedTuple):
    """The open attempt of a person."""

    attempt_id: UUID
    code: str
    language: Language
    article_version: int


class StoredAttempt(NamedTuple):
    """An attempt with the article of its quiz and the days of its certificate."""

    attempt_id: UUID
    code: str
    language: Language
    article_version: int
    revision: int
    seed: int
    question_count: int
    pass_percent: int
    status: AttemptStatus
    begun_at: datetime
    expires_at: datetime
    submitted_at: datetime | None
    wrong: list[int] | None
    is_passed: bool
    certificate_until: datetime | None
    article_id: str
    valid_days: int


queries = load_queries(
    __package__,
    required_readings=RequiredReading.__struct_fields__,
    quizzes=("code", "article_id", *_TERMS, "changed_at", "changed_by"),
    quiz_attempts=StoredAttempt._fields[:-2],
    certificates=_CERTIFICATE,
)


async def list_published(connection: Connection, article_ids: Collection[str]) -> list[StoredText]:
    """List the published versions of articles."""
    return [StoredText(*row) for row in await connection.fetch(queries.list_published, list(article_ids))]


async def lock_published(connection: Connection, article_id: str, language: Language) -> int | None:
    """Read the published version in a language, which stays published until the transaction ends."""
    version: int | None = await connection.fetchval(queries.lock_published, article_id, language)
    return version


async def put_reading(connection: Connection, article_id: str, roles: list[str], now: datetime, actor: str) -> None:
    """Require an article of roles; without roles, no longer."""
    if roles:
        await connection.execute(queries.put_reading, article_id, roles, now, actor)
    else:
        await connection.execute(queries.delete_reading, article_id)


async def has_article(connection: Connection, article_id: str) -> bool:
    return bool(await connection.fetchval(queries.has_article, article_id))


async def list_readings(connection: Connection, roles: Collection[str] | None) -> list[RequiredReading]:
    rows = await connection.fetch(queries.list_readings, None if roles is None else list(roles))
    return [RequiredReading(**row) for row in rows]


async def add_acknowledgement(
    connection: Connection, person: str, article_id: str, language: Language, version: int, now: datetime
) -> None:
    await connection.execute(queries.add_acknowledgement, person, article_id, language, version, now)


async def list_acknowledgements(
    connection: Connection, person: str, article_ids: Collection[str]
) -> set[tuple[str, Language, int]]:
    """List article, language and version of what a person has read of articles."""
    rows = await connection.fetch(queries.list_acknowledgements, person, list(article_ids))
    return {tuple(row) for row in rows}


async def lock_quiz(connection: Connection, code: str) -> None:
    """Keep others from changing this quiz until the transaction ends."""
    await connection.execute(queries.lock_quiz, code)


async def get_quiz(connection: Connection, code: str) -> StoredQuiz | None:
    row = await connection.fetchrow(queries.get_quiz, code)
    return None if row is None else _quiz(row)


async def list_quizzes(connection: Connection, article_ids: Collection[str] | None) -> list[StoredQuiz]:
    rows = await connection.fetch(queries.list_quizzes, None if article_ids is None else list(article_ids))
    return [_quiz(row) for row in rows]


def _quiz(row: Any) -> StoredQuiz:
    terms = QuizTerms(**{name: row[name] for name in _TERMS})
    return StoredQuiz(row["code"], row["article_id"], terms, row["changed_at"], row["changed_by"])


async def put_quiz(
    connection: Connection, code: str, article_id: str, terms: QuizTerms, now: datetime, actor: str
) -> None:
    await connection.execute(queries.put_quiz, code, article_id, *msgspec.structs.astuple(terms), now, actor)


async def find_questions(
    connection: Connection, code: str, language: Language, article_version: int
) -> tuple[int, list[QuizQuestion]] | None:
    """Read the last revision for a version of the article, with its number."""
    row = await connection.fetchrow(queries.get_questions, code, language, article_version)
    return None if row is None else (row["revision"], _questions_decoder.decode(row["questions"]))


async def get_revision(connection: Connection, attempt: StoredAttempt) -> list[QuizQuestion]:
    """Read the questions from which an attempt was drawn."""
    questions = await connection.fetchval(
        queries.get_revision, attempt.code, attempt.language, attempt.article_version, attempt.revision
    )
    return _questions_decoder.decode(questions)


async def add_questions(
    connection: Connection,
    code: str,
    language: Language,
    article_version: int,
    revision: int,
    questions: Sequence[QuizQuestion],
    now: datetime,
    actor: str,
) -> None:
    """Store a revision of the questions about a version of the article."""
    content = msgspec.json.encode(questions).decode()
    await connection.execute(queries.add_questions, code, language, article_version, revision, content, now, actor)


async def list_versions(connection: Connection, codes: Collection[str]) -> list[StoredVersion]:
    """List the versions of quizzes that have questions, the newest first within a language."""
    return [StoredVersion(*row) for row in await connection.fetch(queries.list_versions, list(codes))]


async def lock_person(connection: Connection, person: str) -> None:
    """Keep a person's other requests waiting until the transaction ends."""
    await connection.execute(queries.lock_person, person)


async def end_expired(connection: Connection, person: str, now: datetime) -> None:
    await connection.execute(queries.end_expired, person, now)


async def find_open(connection: Connection, person: str) -> OpenAttempt | None:
    row = await connection.fetchrow(queries.find_open, person)
    return None if row is None else OpenAttempt(*row)


async def end_outdated(connection: Connection, attempt_id: UUID) -> None:
    """End an attempt about a version that is no longer published. It does not count as failed."""
    await connection.execute(queries.end_outdated, attempt_id)


async def list_failures(connection: Connection, person: str, code: str) -> list[tuple[datetime, datetime]]:
    """List beginning and end of failed attempts since the last passed one, the last first."""
    rows = await connection.fetch(queries.list_failures, person, code)
    return [(row["begun_at"], row["ended_at"]) for row in rows]


async def add_attempt(connection: Connection, *values: Any) -> None:
    """Store an open attempt: id, person, roles, version of the quiz, seed, terms, beginning and end."""
    await connection.execute(queries.add_attempt, *values)


async def get_attempt(connection: Connection, attempt_id: UUID, person: str) -> StoredAttempt | None:
    row = await connection.fetchrow(queries.get_attempt, attempt_id, person)
    return None if row is None else StoredAttempt(*row)


async def submit_attempt(
    connection: Connection,
    attempt_id: UUID,
    answers: Sequence[Sequence[int]],
    wrong: Sequence[int],
    certificate_until: datetime | None,
    now: datetime,
) -> None:
    """Store the answers and their grading."""
    content = msgspec.json.encode(answers).decode()
    is_passed = certificate_until is not None
    await connection.execute(queries.submit_attempt, attempt_id, now, content, wrong, is_passed, certificate_until)


async def list_certificates(
    connection: Connection,
    now: datetime,
    count: int,
    *,
    person: str | None = None,
    role: str | None = None,
    codes: Collection[str] | None = None,
    after: UUID | None = None,
    ends_before: datetime | None = None,
    only_valid: bool = False,
) -> list[Certificate]:
    """List certificates in the order in which their attempts began."""
    wanted = None if codes is None else list(codes)
    rows = await connection.fetch(
        queries.list_certificates, person, role, wanted, after, ends_before, now, only_valid, count
    )
    return [Certificate(**row) for row in rows]
