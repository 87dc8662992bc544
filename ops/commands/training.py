"""`floodgate training`: required reading, quizzes from files, and who has passed what."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from commerce.kernel.failures import Failures
from commerce.knowledge.model import ArticleId
from commerce.training.model import Certificate, CertificateFilter, Quiz, ReadingInput, RequiredReading
from commerce.training.quiz_files import read_quiz
from ops.commands.console import (
    JsonOption,
    check_writable,
    exit_on_error,
    format_time,
    get_actor,
    list_all,
    parse_argument,
    print_detail,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Require readings, import quizzes, and list who has passed them.", no_args_is_help=True)
quiz_app = typer.Typer(help="Import and list quizzes.", no_args_is_help=True)
app.add_typer(quiz_app, name="quiz")
_PAGE_SIZE = 500
_COLUMNS = ("person", "quiz", "language", "article version", "passed (UTC)", "valid until (UTC)", "valid", "roles")


@app.command("list")
def list_readings(json: JsonOption = False) -> None:
    """List the articles that roles must read."""

    async def work() -> list[RequiredReading]:
        async with open_cli_services() as shop:
            return await shop.training.list_readings()

    readings = run(work())
    if json:
        print_json(readings)
        return
    table = Table("article", "roles", "changed (UTC)", "by")
    for reading in readings:
        table.add_row(reading.article_id, ", ".join(reading.roles), format_time(reading.changed_at), reading.changed_by)
    print_table(table, "nobody must read anything: floodgate training require ARTICLE ROLE")


@app.command()
def require(
    article_id: Annotated[str, typer.Argument(metavar="ARTICLE", help="the article's name")],
    roles: Annotated[list[str] | None, typer.Argument(metavar="[ROLE]...", help="none ends the requirement")] = None,
) -> None:
    """Require an article of roles: those named replace those before."""

    async def work() -> list[str]:
        article = parse_argument(article_id, ArticleId)
        body = parse_argument({"roles": roles or []}, ReadingInput)
        async with open_cli_services() as shop:
            await shop.training.put_reading(article, body.roles, get_actor())
        return body.roles

    required = run_change(work())
    print_line(f"{article_id}: {', '.join(required) if required else 'nobody'} must read it")


@quiz_app.command("import")
def import_quizzes(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, metavar="FILE.json...")],
) -> None:
    """Create or change quizzes from JSON files. A repeated import changes nothing.

    One that is refused does not keep the others from their turn.

    Their questions are about the versions of the article that are published now. Import the file again after each
    new version, when its questions are right for it: whoever has passed an older one must pass again.
    """

    failures = Failures("import quizzes")

    async def work() -> list[Quiz]:
        quizzes = []
        async with open_cli_services() as shop:
            for file in files:
                with failures.catch(file=file.name):
                    content = read_quiz(file)
                    quizzes.append(await shop.training.put_quiz(content.code, content.quiz, get_actor()))
        return quizzes

    for quiz in run_change(work()):
        print_line(f"{quiz.code}: {_format_versions(quiz)}")
    with exit_on_error():
        failures.raise_any()


@quiz_app.command("list")
def list_quizzes(json: JsonOption = False) -> None:
    """List quizzes with the versions of their articles that have questions.

    Says which ones are missing that `support.certificates` needs.
    """

    async def work() -> tuple[list[Quiz], list[str]]:
        async with open_cli_services() as shop:
            missing = await shop.training.list_missing(shop.settings.support.certificates.values())
            return await shop.training.list_quizzes(), missing

    quizzes, missing = run(work())
    for code in missing:
        print_detail(f"support.certificates needs the quiz {code}, which there is not: nobody has that right")
    if json:
        print_json(quizzes)
        return
    table = Table("quiz", "article", "drawn", "to pass", "published versions", "without questions")
    for quiz in quizzes:
        terms = quiz.terms
        table.add_row(
            *(quiz.code, quiz.article_id, str(terms.questions), f"{terms.pass_percent} %"),
            *(_format_versions(quiz), ", ".join(quiz.missing)),
        )
    print_table(table, "there is no quiz: floodgate training quiz import FILE.json")


def _format_versions(quiz: Quiz) -> str:
    return ", ".join(
        f"{version.language} {version.article_version}: {version.questions} questions"
        for version in quiz.versions
        if version.is_published
    )


@app.command()
def passed(
    person: Annotated[str | None, typer.Option(help="only this person's")] = None,
    role: Annotated[str | None, typer.Option(help="only of persons who had this role")] = None,
    quiz: Annotated[str | None, typer.Option(help="only those of this quiz")] = None,
    expiring_before: Annotated[str | None, typer.Option(metavar="DAY", help="such as 2027-01-31")] = None,
    valid: Annotated[bool, typer.Option("--valid", help="only those that are valid now")] = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE.csv", callback=check_writable, help="is replaced")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List who has passed which quiz, and until when the certificate is valid."""

    async def work() -> list[Certificate]:
        wanted = parse_argument(
            {
                "person": person,
                "role": role,
                "code": quiz,
                "expires_before": expiring_before,
                "only_valid": valid,
            },
            CertificateFilter,
        )
        async with open_cli_services() as shop:
            return await list_all(
                lambda cursor: shop.training.list_certificates(wanted, UUID(cursor) if cursor else None, _PAGE_SIZE)
            )

    certificates = run(work())
    if csv_file is not None:
        with csv_file.open("w", encoding="utf-8", newline="") as target:
            csv.writer(target, lineterminator="\n").writerows([_COLUMNS, *map(_cells, certificates)])
        print_line(f"{len(certificates)} certificates: {csv_file}")
    elif json:
        print_json(certificates)
    else:
        table = Table(*_COLUMNS)
        for certificate in certificates:
            table.add_row(*_cells(certificate))
        print_table(table, "nobody has such a certificate")


def _cells(certificate: Certificate) -> list[str]:
    return [
        *(certificate.person, certificate.code, certificate.language, str(certificate.article_version)),
        *(format_time(certificate.passed_at), format_time(certificate.valid_until)),
        *("yes" if certificate.is_valid else "no", " ".join(certificate.roles)),
    ]
