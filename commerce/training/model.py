"""Required reading, quizzes with their questions, attempts, and the certificates that passed ones are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from commerce.kernel.moments import Day, WithMoments
from commerce.kernel.types import filled_line
from commerce.knowledge.model import ArticleId, VersionNo
from commerce.text_search.model import Language

MAX_QUESTIONS = 200
MAX_DRAWN = 50
MAX_OPTIONS = 8
MAX_ATTEMPTS = 20

AttemptStatus = Literal["open", "submitted", "expired", "outdated"]
QuizCode = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}\Z", description="the quiz's name", examples=["claims-basics"])
]
Person = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}\Z", description="as the subject of the token", examples=["anna"]
    ),
]
RoleName = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,40}\Z", description="a role of staff")]
OptionNo = Annotated[int, msgspec.Meta(ge=1, le=MAX_OPTIONS)]
Choice = Annotated[list[OptionNo], msgspec.Meta(max_length=MAX_OPTIONS)]


class QuizQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A question with its options; `right` has the numbers of the right ones, which count from 1."""

    text: Annotated[str, filled_line(1000)]
    kind: Literal["single", "several"] = "single"
    options: Annotated[list[Annotated[str, filled_line(500)]], msgspec.Meta(min_length=2, max_length=MAX_OPTIONS)]
    right: Annotated[list[OptionNo], msgspec.Meta(min_length=1, max_length=MAX_OPTIONS)]

    def __post_init__(self) -> None:
        if len(set(self.options)) < len(self.options):
            raise ValueError("two options are the same")
        if len(set(self.right)) < len(self.right) or max(self.right) > len(self.options):
            raise ValueError("right names an option twice, or one that there is not")
        if self.kind == "single" and len(self.right) != 1:
            raise ValueError("a question of the kind single has one right option")


class QuizTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Terms of a quiz. After `attempts` failed ones a person pauses for `pause_hours`.

    A certificate is valid for `valid_days`. When a new version of the article has questions, certificates of older
    versions are valid for `grace_days` more at most."""

    questions: Annotated[int, msgspec.Meta(ge=1, le=MAX_DRAWN)]
    pass_percent: Annotated[int, msgspec.Meta(ge=1, le=100)]
    attempts: Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPTS)]
    pause_hours: Annotated[int, msgspec.Meta(ge=1, le=24 * 30)]
    minutes: Annotated[int, msgspec.Meta(ge=1, le=24 * 60)]
    valid_days: Annotated[int, msgspec.Meta(ge=1, le=3650)]
    grace_days: Annotated[int, msgspec.Meta(ge=0, le=365)]


Questions = Annotated[list[QuizQuestion], msgspec.Meta(min_length=1, max_length=MAX_QUESTIONS)]


class QuizInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A quiz about the published versions of an article, with the questions in each language."""

    article_id: ArticleId
    terms: QuizTerms
    languages: Annotated[dict[Language, Questions], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        for language, questions in self.languages.items():
            if len(questions) < self.terms.questions:
                raise ValueError(
                    f"languages/{language} has {len(questions)} questions, and {self.terms.questions} are to be drawn"
                )


class QuizFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a file: a quiz and its code."""

    code: QuizCode
    quiz: QuizInput


class ReadingInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Roles that must read an article; none ends the requirement."""

    roles: Annotated[list[RoleName], msgspec.Meta(max_length=20)]


class RequiredReading(msgspec.Struct, frozen=True, kw_only=True):
    """An article that roles must read."""

    article_id: str
    roles: list[str]
    changed_at: datetime
    changed_by: str


class QuizVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Questions about a version of the article. `is_published`: readers have this version now."""

    language: Language
    article_version: int
    revision: int
    questions: int
    created_at: datetime
    is_published: bool


class Quiz(msgspec.Struct, frozen=True, kw_only=True):
    """A quiz, without its questions.

    `missing` has the languages whose published version has no questions yet."""

    code: str
    article_id: str
    terms: QuizTerms
    changed_at: datetime
    changed_by: str
    versions: list[QuizVersion]
    missing: list[Language]


class Acknowledgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version of an article that somebody has read."""

    language: Language
    version: VersionNo


class AttemptInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The language in which somebody takes a quiz."""

    language: Language


class AnswersInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The chosen options of each question, in the order in which they were shown. They count from 1."""

    answers: Annotated[list[Choice], msgspec.Meta(min_length=1, max_length=MAX_DRAWN)]


class DrawnQuestion(msgspec.Struct, frozen=True):
    """A question as it is shown: without the right options."""

    question_no: int
    text: str
    kind: Literal["single", "several"]
    options: list[str]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt of a person.

    `questions` are there while it is open; `right_count` and `wrong`, the numbers of the questions that were not
    answered right, once it is submitted; `certificate_until` if it is passed."""

    attempt_id: UUID
    code: str
    article_id: str
    language: Language
    article_version: int
    status: AttemptStatus
    begun_at: datetime
    expires_at: datetime
    submitted_at: datetime | None
    question_count: int
    pass_percent: int
    questions: list[DrawnQuestion]
    right_count: int | None
    wrong: list[int]
    is_passed: bool
    certificate_until: datetime | None


class QuizStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A quiz as a person has passed it, with the languages in which it can be taken now.

    `valid_until` is the end of the last valid certificate; with `is_outdated` a new version asks again before it."""

    code: str
    languages: list[Language]
    valid_until: datetime | None
    is_outdated: bool


class PublishedVersion(msgspec.Struct, frozen=True):
    """A published version of an article, to be read in one of its languages."""

    language: Language
    version: int
    title: str
    is_acknowledged: bool


class TrainingItem(msgspec.Struct, frozen=True, kw_only=True):
    """An article that a person must read, with its quizzes.

    It is complete when the published version is acknowledged in one language, and each quiz has a valid
    certificate that no newer version has outdated."""

    article_id: str
    is_complete: bool
    versions: list[PublishedVersion]
    quizzes: list[QuizStanding]


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A passed attempt. `roles` are those of the person on that day.

    A new version of the article has asked again if `is_outdated`: then `valid_until` may precede
    `certificate_until`."""

    attempt_id: UUID
    person: str
    roles: list[str]
    code: str
    article_id: str
    language: Language
    article_version: int
    passed_at: datetime
    certificate_until: datetime
    valid_until: datetime
    is_outdated: bool
    is_valid: bool


class CertificateFilter(WithMoments, frozen=True, kw_only=True):
    """Restrictions of a list of certificates.

    `expires_before` restricts it to those whose validity ends before a day."""

    person: Person | None = None
    role: RoleName | None = None
    code: QuizCode | None = None
    expires_before: Day | None = None
    only_valid: bool = False


def draw_questions(questions: Sequence[QuizQuestion], count: int, seed: int) -> list[QuizQuestion]:
    """Draw questions and shuffle them and their options.

    The same seed draws the same: Python promises the sequence of `random()` for a seed, not that of `shuffle`."""
    random = Random(seed)  # noqa: S311 - the seed is secret random bits, and nobody is shown its numbers
    drawn = sorted(questions, key=lambda _: random.random())[:count]
    return [_shuffle_options(question, random) for question in drawn]


def _shuffle_options(question: QuizQuestion, random: Random) -> QuizQuestion:
    order = sorted(range(len(question.options)), key=lambda _: random.random())
    right = [order.index(number - 1) + 1 for number in question.right]
    return msgspec.structs.replace(question, options=[question.options[place] for place in order], right=sorted(right))


def find_wrong(drawn: Sequence[QuizQuestion], answers: Sequence[Sequence[int]]) -> list[int]:
    """Return the numbers of questions whose answer is not exactly the right options."""
    return [
        number
        for number, (question, answer) in enumerate(zip(drawn, answers, strict=True), 1)
        if set(answer) != set(question.right)
    ]


def has_passed(right_count: int, question_count: int, pass_percent: int) -> bool:
    """Tell whether the right answers reach the share. Nobody passes with nothing right."""
    return right_count > 0 and right_count * 100 >= pass_percent * question_count


def find_pause_end(failures: Sequence[tuple[datetime, datetime]], terms: QuizTerms, now: datetime) -> datetime | None:
    """Return the end of the pause, None if an attempt may begin now.

    `failures` has beginning and end of failed attempts, the last first. A pause between two starts the count again."""
    pause, later, count = timedelta(hours=terms.pause_hours), now, 0
    for begun_at, ended_at in failures:
        if later - ended_at >= pause:
            break
        count, later = count + 1, begun_at
    return failures[0][1] + pause if count >= terms.attempts else None
