"""`floodgate training` as leads have it, with the quizzes that a new shop begins with."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from commerce.training.attempts import QuizAttempts
from commerce.training.model import Acknowledgement, draw_questions, find_wrong
from commerce.training.quiz_files import read_quiz
from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import Command, make_command
from tests.support.processes import Processes

LOCAL = Path(__file__).parents[2] / "ops/local"
QUIZZES = sorted((LOCAL / "quizzes").glob("*.json"))


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    run = make_command(Processes(settings, tmp_path).environment())

    async def run_words(*arguments: object, **variables: str) -> tuple[int, str]:
        status, output = await run(*arguments, **variables)
        return status, " ".join(output.translate(dict.fromkeys(range(0x2500, 0x2580), " ")).split())

    return run_words


@pytest.mark.parametrize("file", QUIZZES, ids=lambda file: file.stem)
def test_starter_quiz_asks_the_same_of_an_internal_article_in_both_languages(file: Path) -> None:
    content = read_quiz(file)
    assert content.code == file.stem
    texts = [LOCAL / "articles" / f"{content.quiz.article_id}.{language}.md" for language in ("zh", "en")]
    assert all("audience: internal" in text.read_text(encoding="utf-8") for text in texts)
    chinese, english = content.quiz.languages["zh"], content.quiz.languages["en"]
    forms = [
        [(question.kind, len(question.options), question.right) for question in bank] for bank in (chinese, english)
    ]
    assert forms[0] == forms[1]
    drawn = draw_questions(chinese, content.quiz.terms.questions, 1)
    assert find_wrong(drawn, [[number] for number in range(1, 6)]), "the first options are not all right"


async def test_starter_quizzes_are_imported_taken_and_listed(
    floodgate: Command, shop: CliServices, tmp_path: Path
) -> None:
    await floodgate("knowledge", "import", LOCAL / "articles", "--author", "ann")
    await floodgate("knowledge", "publish", "staff-lost-claims", "staff-chargebacks", "staff-decision-limits")
    assert await floodgate("training", "require", "staff-lost-claims", "support") == (
        0,
        "staff-lost-claims: support must read it",
    )
    assert (await floodgate("training", "require", "staff-lost-claims", "boss"))[0] == 1
    assert (await floodgate("training", "require", "no-such-article", "support"))[0] == 1
    assert "staff-lost-claims support" in (await floodgate("training", "list"))[1]
    imported = await floodgate("training", "quiz", "import", *QUIZZES)
    assert imported[0] == 0
    assert "claims-basics: en 1: 9 questions, zh 1: 9 questions" in imported[1]
    assert await floodgate("training", "quiz", "import", *QUIZZES) == imported
    certificates = {"FLOODGATE_SUPPORT__CERTIFICATES": '{"claims": "claims-basics", "support": "nowhere"}'}
    listed = await floodgate("training", "quiz", "list", **certificates)
    assert ("needs the quiz nowhere" in listed[1], "needs the quiz claims" in listed[1]) == (True, False)
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    status, output = await floodgate("training", "quiz", "import", broken, *QUIZZES)
    assert (status, imported[1] in output, "broken.json (cannot read broken.json: " in output) == (1, True, True)
    quizzes = json.loads((await floodgate("training", "quiz", "list", "--json"))[1])
    assert [version["revision"] for quiz in quizzes for version in quiz["versions"]] == [1] * 6
    attempts = QuizAttempts(shop.db, shop.clock, shop.ids)
    await shop.training.acknowledge("bea", "staff-lost-claims", Acknowledgement("zh", 1))
    attempt = await attempts.begin("bea", ["support"], "claims-basics", "zh")
    quiz = read_quiz(LOCAL / "quizzes/claims-basics.json").quiz
    bank = {question.text: question for question in quiz.languages["zh"]}
    answers = []
    for drawn in attempt.questions:
        question = bank[drawn.text]
        answers.append([drawn.options.index(question.options[number - 1]) + 1 for number in question.right])
    assert (await attempts.submit("bea", attempt.attempt_id, answers)).is_passed
    file = tmp_path / "passed.csv"
    listed = await floodgate(
        "training", "passed", "--role", "support", "--expiring-before", "2999-01-01", "--csv", file
    )
    assert listed[0] == 0, listed[1]
    with file.open(encoding="utf-8", newline="") as rows:
        [row] = csv.DictReader(rows)
    assert (row["person"], row["quiz"], row["valid"], row["roles"]) == ("bea", "claims-basics", "yes", "support")
    assert "bea claims-basics zh 1" in (await floodgate("training", "passed"))[1]
    assert await floodgate("training", "passed", "--person", "ann") == (0, "nobody has such a certificate")
    assert (await floodgate("training", "passed", "--expiring-before", "soon"))[0] != 0


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b'{"code": "x"}', b'{"code": "X Y", "quiz": {}}', b"[" * 100_000]
)
async def test_file_that_is_no_quiz_is_refused_with_its_name(
    floodgate: Command, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "quiz.json"
    file.write_bytes(content)
    status, output = await floodgate("training", "quiz", "import", file)
    assert status == 1
    assert "cannot read quiz.json" in output
