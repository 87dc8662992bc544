"""Measures how well a search finds the right articles for questions, with ir-measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from commerce.kernel.csv_records import CsvRecordReader
from commerce.kernel.optional import require_extra
from commerce.knowledge.article_index import CUSTOMERS, STAFF, ArticleIndex
from commerce.knowledge.errors import UnreadableQuestions
from commerce.text_search.model import LANGUAGES, MAX_QUERY_CHARS, Language

COLUMNS = ("question", "language", "articles")
MAX_QUESTIONS = 100_000
RESULTS = 10
_BEST, _GOOD = 2, 1
"""Relevance of the first article that a question names, and of the others."""


class JudgedQuestion(NamedTuple):
    """A question with the ids of the articles that answer it, best first."""

    text: str
    language: Language
    article_ids: tuple[str, ...]


class QuestionResult(msgspec.Struct, frozen=True):
    """A question with the ids that a search returned.

    `rank` is that of the first right one, null if none is there."""

    question: str
    language: Language
    wanted: tuple[str, ...]
    returned: tuple[str, ...]
    rank: int | None


class SearchQuality(msgspec.Struct, frozen=True):
    """Measures over questions, each from 0 to 1.

    `without_hit` is the share of those for which nothing was found at all."""

    questions: int
    ndcg_at_10: float
    mrr: float
    recall_at_5: float
    without_hit: float


def read_questions(lines: Iterable[str]) -> list[JudgedQuestion]:
    """Read a CSV file with the columns question, language, articles; ids are separated by blanks or `|`.

    Raises `UnreadableQuestions` with the number of the line.
    """
    reader = CsvRecordReader(enumerate(lines, start=1))
    header = reader.read()
    columns = [] if header is None else [name.strip() for name in header.fields]
    if not {*COLUMNS} <= {*columns}:
        raise UnreadableQuestions(f"line 1 does not name the columns {', '.join(COLUMNS)}")
    questions: list[JudgedQuestion] = []
    while (record := reader.read(len(columns))) is not None:
        if record.reason:
            raise UnreadableQuestions(f"line {record.fault_line or record.line}: {record.reason}")
        if not record.fields:
            continue
        row = dict(zip(columns, record.fields, strict=True))
        text, language, articles = (row[column].strip() for column in COLUMNS)
        ids = tuple(dict.fromkeys(articles.replace("|", " ").split()))
        if not 1 <= len(text) <= MAX_QUERY_CHARS or language not in LANGUAGES or not ids:
            raise UnreadableQuestions(
                f"line {record.line} needs a question of 1 to {MAX_QUERY_CHARS} characters, a language (zh or "
                "en) and an article"
            )
        questions.append(JudgedQuestion(text, msgspec.convert(language, Language), ids))
        if len(questions) > MAX_QUESTIONS:
            raise UnreadableQuestions(f"it has more than {MAX_QUESTIONS} questions; split the file")
    if not questions:
        raise UnreadableQuestions("it has no question")
    return questions


def answer_questions(questions: Sequence[JudgedQuestion], index: ArticleIndex) -> list[QuestionResult]:
    """Return for each question what a search finds, up to `RESULTS` articles.

    A question whose right articles are all public is asked as a customer, who does not find internal ones.
    """
    results = []
    for question in questions:
        is_public = all(index.find(article_id, CUSTOMERS) for article_id in question.article_ids)
        articles = index.search(question.text, question.language, CUSTOMERS if is_public else STAFF, RESULTS)
        returned = tuple(article.article_id for article in articles)
        ranks = (rank for rank, article_id in enumerate(returned, 1) if article_id in question.article_ids)
        results.append(
            QuestionResult(question.text, question.language, question.article_ids, returned, next(ranks, None))
        )
    return results


def evaluate(results: Sequence[QuestionResult]) -> SearchQuality:
    """Measure results, of which there is at least one. Raises `NotReady` if ir-measures is not installed."""
    require_extra("evaluate the search", "evaluation", "ir_measures")
    import ir_measures  # noqa: PLC0415  # only this needs it, and it brings scipy

    wanted, returned = [], []
    for number, result in enumerate(results):
        key = str(number)
        wanted += [
            ir_measures.Qrel(key, article_id, _GOOD if place else _BEST)
            for place, article_id in enumerate(result.wanted)
        ]
        returned += [
            ir_measures.ScoredDoc(key, article_id, float(RESULTS - place))
            for place, article_id in enumerate(result.returned)
        ]
    ndcg, mrr, recall = ir_measures.nDCG @ 10, ir_measures.RR, ir_measures.R @ 5
    values = ir_measures.calc_aggregate([ndcg, mrr, recall], wanted, returned)
    without_hit = sum(not result.returned for result in results) / len(results)
    return SearchQuality(len(results), float(values[ndcg]), float(values[mrr]), float(values[recall]), without_hit)
