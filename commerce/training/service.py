"""Training of staff: what somebody must read and pass, and the quizzes that leads put."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime, time
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.knowledge.errors import NoSuchArticle
from commerce.training import store
from commerce.training.errors import ArticleOutdated, NoSuchQuiz
from commerce.training.model import (
    Acknowledgement,
    Certificate,
    CertificateFilter,
    PublishedVersion,
    Quiz,
    QuizInput,
    QuizStanding,
    QuizVersion,
    RequiredReading,
    TrainingItem,
)

_MAX_CERTIFICATES_OF_PERSON = 1_000


class Training:
    """Required readings, quizzes and certificates, over Postgres.

    `known_roles` are those that a reading may be required of. Days end by the clocks of `timezone`."""

    def __init__(self, db: Database, clock: Clock, timezone: ZoneInfo, known_roles: Collection[str]) -> None:
        self._db = db
        self._clock = clock
        self._timezone = timezone
        self._roles = known_roles

    async def list_readings(self) -> list[RequiredReading]:
        async with self._db.connection() as connection:
            return await store.list_readings(connection, None)

    async def put_reading(self, article_id: str, roles: list[str], actor: str) -> None:
        """Require an article of roles, or without roles no longer of anybody. Raises `NoSuchArticle`."""
        for place, role in enumerate(roles):
            if role not in self._roles:
                detail = f"there is no role {role!r}; roles are {', '.join(self._roles)}"
                raise Invalid.at(f"/roles/{place}", detail)
        async with self._db.transaction() as connection:
            if not await store.has_article(connection, article_id):
                raise NoSuchArticle(f"there is no article {article_id}")
            await store.put_reading(connection, article_id, sorted(set(roles)), self._now(), actor)

    async def acknowledge(self, person: str, article_id: str, read: Acknowledgement) -> None:
        """Record that a person has read the published version of an article. A repeat changes nothing.

        Raises `ArticleOutdated` if it is not the published one."""
        async with self._db.transaction() as connection:
            published = await store.lock_published(connection, article_id, read.language)
            if published != read.version:
                raise ArticleOutdated(_explain_outdated(article_id, read.language, published), version=published)
            await store.add_acknowledgement(connection, person, article_id, read.language, read.version, self._now())

    async def list_items(self, person: str, roles: Collection[str]) -> list[TrainingItem]:
        """List what a person of these roles must read and pass, with what is not complete first."""
        async with self._db.snapshot() as connection:
            article_ids = [reading.article_id for reading in await store.list_readings(connection, roles)]
            read = await store.list_acknowledgements(connection, person, article_ids)
            versions: defaultdict[str, list[PublishedVersion]] = defaultdict(list)
            for article_id, language, version, title in await store.list_published(connection, article_ids):
                is_read = (article_id, language, version) in read
                versions[article_id].append(PublishedVersion(language, version, title, is_read))
            standings = await self._list_standings(connection, person, article_ids)
        items = [
            TrainingItem(
                article_id=article_id,
                is_complete=any(version.is_acknowledged for version in versions[article_id])
                and all(quiz.valid_until is not None and not quiz.is_outdated for quiz in standings[article_id]),
                versions=versions[article_id],
                quizzes=standings[article_id],
            )
            for article_id in article_ids
            if versions[article_id]
        ]
        return sorted(items, key=lambda item: item.is_complete)

    async def _list_standings(
        self, connection: Connection, person: str, article_ids: Collection[str]
    ) -> defaultdict[str, list[QuizStanding]]:
        """List the quizzes of articles as a person has passed them."""
        quizzes = await _list_quizzes(connection, article_ids)
        certificates = await store.list_certificates(
            connection,
            self._now(),
            _MAX_CERTIFICATES_OF_PERSON,
            person=person,
            codes=[quiz.code for quiz in quizzes],
            only_valid=True,
        )
        standings: defaultdict[str, list[QuizStanding]] = defaultdict(list)
        for quiz in quizzes:
            valid = [certificate for certificate in certificates if certificate.code == quiz.code]
            standing = QuizStanding(
                code=quiz.code,
                languages=[version.language for version in quiz.versions if version.is_published],
                valid_until=max((certificate.valid_until for certificate in valid), default=None),
                is_outdated=bool(valid) and all(certificate.is_outdated for certificate in valid),
            )
            standings[quiz.article_id].append(standing)
        return standings

    async def list_quizzes(self) -> list[Quiz]:
        """List quizzes by code, without their questions."""
        async with self._db.snapshot() as connection:
            return await _list_quizzes(connection, None)

    async def list_missing(self, codes: Collection[str]) -> list[str]:
        """Return those of the codes that no quiz has: nobody can get their certificates."""
        async with self._db.connection() as connection:
            return [code for code in sorted(set(codes)) if await store.get_quiz(connection, code) is None]

    async def put_quiz(self, code: str, new: QuizInput, actor: str) -> Quiz:
        """Create or change a quiz, with these questions about the published versions.

        A repeat changes nothing. Raises `ArticleOutdated` if there is no published version in a language, `Invalid`
        if the quiz is about another article.
        """
        now = self._now()
        async with self._db.transaction() as connection:
            await store.lock_quiz(connection, code)
            quiz = await store.get_quiz(connection, code)
            if quiz is not None and quiz.article_id != new.article_id:
                detail = f"the quiz {code} is about {quiz.article_id}; use another code"
                raise Invalid.at("/article_id", detail)
            published = {
                language: await store.lock_published(connection, new.article_id, language)
                for language in sorted(new.languages)
            }
            if quiz is None or quiz.terms != new.terms:
                if None in published.values() and not await store.has_article(connection, new.article_id):
                    raise NoSuchArticle(f"there is no article {new.article_id}")
                await store.put_quiz(connection, code, new.article_id, new.terms, now, actor)
            for language, version in published.items():
                if version is None:
                    raise ArticleOutdated(_explain_outdated(new.article_id, language, None), version=None)
                last = await store.find_questions(connection, code, language, version)
                if last is None or last[1] != new.languages[language]:
                    revision = 1 if last is None else last[0] + 1
                    questions = new.languages[language]
                    await store.add_questions(connection, code, language, version, revision, questions, now, actor)
            [stored] = [quiz for quiz in await _list_quizzes(connection, [new.article_id]) if quiz.code == code]
        return stored

    async def list_certificates(self, wanted: CertificateFilter, after: UUID | None, size: int) -> Page[Certificate]:
        """List certificates in the order in which their attempts began. Raises `NoSuchQuiz`."""
        ends_before = (
            None if wanted.expires_before is None else datetime.combine(wanted.expires_before, time(), self._timezone)
        )
        async with self._db.snapshot() as connection:
            if wanted.code is not None and await store.get_quiz(connection, wanted.code) is None:
                raise NoSuchQuiz(f"there is no quiz {wanted.code}")
            certificates = await store.list_certificates(
                connection,
                self._now(),
                size + 1,
                person=wanted.person,
                role=wanted.role,
                codes=None if wanted.code is None else [wanted.code],
                after=after,
                ends_before=ends_before,
                only_valid=wanted.only_valid,
            )
        return to_page(certificates, size, lambda certificate: certificate.attempt_id.hex)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


async def _list_quizzes(connection: Connection, article_ids: Collection[str] | None) -> list[Quiz]:
    stored = await store.list_quizzes(connection, article_ids)
    texts = await store.list_published(connection, {quiz.article_id for quiz in stored})
    published = {(text.article_id, text.language): text.version for text in texts}
    versions = await store.list_versions(connection, [quiz.code for quiz in stored])
    quizzes = []
    for quiz in stored:
        own = [
            QuizVersion(
                language=version.language,
                article_version=version.article_version,
                revision=version.revision,
                questions=version.questions,
                created_at=version.created_at,
                is_published=published.get((quiz.article_id, version.language)) == version.article_version,
            )
            for version in versions
            if version.code == quiz.code
        ]
        ready = {version.language for version in own if version.is_published}
        quizzes.append(
            Quiz(
                code=quiz.code,
                article_id=quiz.article_id,
                terms=quiz.terms,
                changed_at=quiz.changed_at,
                changed_by=quiz.changed_by,
                versions=own,
                missing=[
                    text.language for text in texts if text.article_id == quiz.article_id and text.language not in ready
                ],
            )
        )
    return quizzes


def _explain_outdated(article_id: str, language: str, published: int | None) -> str:
    if published is None:
        return f"{article_id} has no published version in {language}: choose another language, or have it published"
    return f"version {published} of {article_id} in {language} is published now: read and acknowledge that one"
