"""The starter articles are complete in both languages, and the questions name existing ones."""

from __future__ import annotations

import csv
import re
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from commerce.aftersales.reasons import REASONS

ROOT = Path(__file__).parents[2]
ARTICLES = ROOT / "ops" / "local" / "articles"
FILES = sorted(ARTICLES.iterdir())
CODES = {file.name.partition(".")[0] for file in FILES}
KEYS = ("title", "audience", "owner", "review_by", "reasons", "words")
SHARED_KEYS = ("audience", "owner", "review_by", "reasons")
QUESTIONS = {"questions_dev.csv": {"zh": 90, "en": 30}, "questions_held_out.csv": {"zh": 60, "en": 20}}


def read_article(file: Path) -> tuple[dict[str, str], str]:
    """Return the front matter of an article and its Markdown."""
    start, header, body = file.read_text(encoding="utf-8").split("---\n", 2)
    assert start == ""
    pairs = [line.split(":", 1) for line in header.splitlines()]
    assert [key for key, _ in pairs] == list(KEYS)
    return {key: value.strip() for key, value in pairs}, body.strip()


def read_questions(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_article_has_both_languages() -> None:
    assert len(CODES) == 50
    assert {file.name for file in FILES} == {f"{code}.{language}.md" for code in CODES for language in ("en", "zh")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_article_has_valid_front_matter(file: Path) -> None:
    fields, _ = read_article(file)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.(en|zh)\.md", file.name)
    assert 5 <= len(fields["title"]) <= 100
    assert fields["audience"] in ("public", "internal")
    assert fields["owner"] in ("support-lead", "payments-lead", "shipping-lead", "warehouse-lead")
    assert date.fromisoformat(fields["review_by"]).year == 2027
    assert set(fields["reasons"].split()) <= set(REASONS)
    assert 1 <= len([word for word in fields["words"].split(";") if word.strip()]) <= 8


@pytest.mark.parametrize("code", sorted(CODES))
def test_languages_of_article_share_fields_and_have_text_in_bounds(code: str) -> None:
    english, english_text = read_article(ARTICLES / f"{code}.en.md")
    chinese, chinese_text = read_article(ARTICLES / f"{code}.zh.md")
    assert [english[key] for key in SHARED_KEYS] == [chinese[key] for key in SHARED_KEYS]
    assert 150 <= len(english_text.split()) <= 350
    assert 200 <= len(re.findall(r"[\u4e00-\u9fff]", chinese_text)) <= 600
    assert not re.search(r"[\u4e00-\u9fff]", english["title"] + english["words"] + english_text)
    assert re.search(r"[\u4e00-\u9fff]", chinese["title"])
    assert not re.search(r"<\s*\w", english_text + chinese_text), "articles hold no HTML"


def test_reasons_of_customers_lead_to_articles() -> None:
    linked = {reason for file in FILES for reason in read_article(file)[0]["reasons"].split()}
    assert set(REASONS) - linked == {"other_reason", "unknown"}


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_name_existing_articles(name: str) -> None:
    questions = read_questions(name)
    assert Counter(question["language"] for question in questions) == QUESTIONS[name]
    for question in questions:
        assert question["question"] == question["question"].strip() != ""
        codes = question["articles"].split()
        assert codes, question
        assert len(codes) == len(set(codes)), question
        assert set(codes) <= CODES, question


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_cover_all_articles(name: str) -> None:
    assert {code for question in read_questions(name) for code in question["articles"].split()} == CODES


def test_no_question_is_in_both_sets() -> None:
    texts = [question["question"] for name in QUESTIONS for question in read_questions(name)]
    assert len(texts) == len(set(texts))
