"""`floodgate knowledge`: articles from files, their review, and how well the search finds them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from commerce.kernel.csv_rows import read_lines
from commerce.kernel.failures import Failures
from commerce.knowledge.article_files import ImportedFile, import_articles, read_folder
from commerce.knowledge.article_index import CUSTOMERS, STAFF
from commerce.knowledge.live_articles import LiveArticles
from commerce.knowledge.model import (
    Article,
    ArticleStatus,
    ArticleVersion,
    FoundArticle,
    MissedSearch,
    VersionStep,
    VersionSummary,
)
from commerce.knowledge.search_quality import (
    RESULTS,
    QuestionResult,
    SearchQuality,
    answer_questions,
    evaluate,
    read_questions,
)
from commerce.text_search.model import QUERY_INVALID, Language, SearchQuery
from ops.commands.console import (
    CsvFile,
    JsonOption,
    exit_on_error,
    format_time,
    get_actor,
    list_all,
    parse_argument,
    print_detail,
    print_json,
    print_line,
    print_table,
    print_text,
    print_values,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import CliServices, open_cli_services

app = typer.Typer(help="Import, review, publish, find and evaluate articles.", no_args_is_help=True)
ArticleName = Annotated[str, typer.Argument(metavar="ARTICLE", help="the article's name, such as return-a-product")]
LanguageOption = Annotated[Language | None, typer.Option(help="only this language")]
_PAGE_SIZE = 100


@app.command("import")
def import_folder(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, metavar="DIR")],
    author: Annotated[
        str | None, typer.Option(metavar="NAME", help="who has written the texts, if it is not you")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="say what the import would do, and change nothing")] = False,
    json: JsonOption = False,
) -> None:
    """Create or change articles from the files ID.zh.md and ID.en.md of a folder.

    Changed texts wait for a review then. A file begins with lines of `key: value` between two lines of ---: title,
    audience (public or internal), owner, review_by (2027-06-30), and optionally words (by which customers search,
    divided by semicolons), reasons, skus and categories (divided by blanks). Then comes Markdown.

    A wrong file is refused with the reason; all others are imported. Status 2 if any is refused. A repeated import
    changes nothing. Who imports may publish only what somebody else has written.
    """

    async def work() -> list[ImportedFile]:
        files, refused = read_folder(folder)
        async with open_cli_services() as shop:
            actor = f"staff {author}" if author else get_actor()
            return refused + await import_articles(shop.knowledge, files, actor, is_dry_run=check)

    imported = run(work()) if check else run_change(work())
    if json:
        print_json(imported)
    else:
        counts = dict.fromkeys(("added", "changed", "unchanged", "refused"), 0)
        for file in imported:
            counts[file.effect] += 1
        print_line(f"{len(imported)} files: {', '.join(f'{count} {effect}' for effect, count in counts.items())}")
        for file in imported:
            if file.effect == "refused":
                print_detail(f"  {file.file}: {file.reason}")
    if any(file.effect == "refused" for file in imported):
        raise typer.Exit(2)


@app.command("list")
def list_articles(
    status: Annotated[ArticleStatus | None, typer.Option(help="only those with such a version")] = None,
    overdue: Annotated[
        bool, typer.Option("--overdue", help="only published ones past the day of their review")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List articles with the status of their versions."""

    async def work() -> list[Article]:
        async with open_cli_services() as shop:
            return await list_all(
                lambda cursor: shop.knowledge.list_articles(cursor, _PAGE_SIZE, status=status, only_overdue=overdue)
            )

    articles = run(work())
    if json:
        print_json(articles)
        return
    table = Table("article", "audience", "owner", "review by", "versions", "title", "helped", "did not")
    for article in articles:
        table.add_row(
            article.article_id,
            article.terms.audience,
            article.terms.owner,
            article.terms.review_by.isoformat(),
            ", ".join(f"{version.language} {version.version} {version.status}" for version in article.versions),
            article.versions[0].title if article.versions else "",
            str(article.helped),
            str(article.not_helped),
        )
    print_table(table, "there is no such article: floodgate knowledge import DIR")


@app.command()
def show(
    article_id: ArticleName,
    language: LanguageOption = None,
    version: Annotated[int | None, typer.Option(help="show the text of this version")] = None,
    json: JsonOption = False,
) -> None:
    """Show an article with its versions, or with --language and --version a text."""
    if (language is None) != (version is None):
        raise typer.BadParameter("--language and --version belong together")

    async def work() -> Article | ArticleVersion:
        async with open_cli_services() as shop:
            if language is not None and version is not None:
                return await shop.knowledge.get_version(article_id, language, version)
            return await shop.knowledge.get(article_id)

    shown = run(work())
    if json:
        print_json(shown)
    elif isinstance(shown, ArticleVersion):
        print_line(f"{shown.text.title} ({shown.summary.status}, by {shown.summary.author})")
        print_text(shown.text.body)
    else:
        print_values(msgspec.structs.asdict(shown.terms).items())
        table = Table(
            "language", "version", "status", "title", "author", "created (UTC)", "reviewer", "published (UTC)"
        )
        for summary in shown.versions:
            table.add_row(*_version_cells(summary))
        print_table(table, f"{article_id} has no text")


def _version_cells(version: VersionSummary) -> list[str]:
    return [
        *(version.language, str(version.version), version.status, version.title, version.author),
        *(format_time(version.created_at), version.reviewer or "", format_time(version.published_at)),
    ]


@app.command()
def review(article_id: ArticleName, language: LanguageOption = None) -> None:
    """Submit the drafts of an article for review."""
    _change_versions([article_id], language, "draft", "submit")


@app.command()
def publish(
    article_ids: Annotated[list[str] | None, typer.Argument(metavar="[ARTICLE]...")] = None,
    language: LanguageOption = None,
    everything: Annotated[bool, typer.Option("--all", help="all that wait for a review")] = False,
) -> None:
    """Publish versions in review that somebody else has written, in the place of the published ones."""
    if bool(article_ids) == everything:
        raise typer.BadParameter("name articles, or use --all")
    _change_versions(article_ids, language, "in_review", "publish")


@app.command()
def retire(article_id: ArticleName, language: LanguageOption = None) -> None:
    """Retire the published versions of an article: nobody finds it any more."""
    _change_versions([article_id], language, "published", "retire")


def _change_versions(
    article_ids: list[str] | None, language: Language | None, status: ArticleStatus, action: str
) -> None:
    """Change all versions of a status of the articles, or of all with None, and print which.

    One that cannot be changed does not keep the others from their turn."""
    failures = Failures(f"{action} articles")

    async def work() -> list[str]:
        changed = []
        async with open_cli_services() as shop:
            for article in await _read_articles(shop, article_ids, status):
                for version in article.versions:
                    if version.status == status and language in (None, version.language):
                        step = VersionStep(version.language, version.version)
                        with failures.catch(article_id=article.article_id, language=version.language):
                            await getattr(shop.knowledge, action)(article.article_id, step, get_actor())
                            changed.append(f"{article.article_id}, {version.language}, version {version.version}")
        return changed

    changed = run_change(work())
    for text in changed:
        print_line(f"{text}: {'in review' if action == 'submit' else action + ('ed' if action == 'publish' else 'd')}")
    if not changed and not failures.count:
        print_line(f"nothing to do: no version is {status}")
    with exit_on_error():
        failures.raise_any()


async def _read_articles(shop: CliServices, article_ids: list[str] | None, status: ArticleStatus) -> list[Article]:
    if article_ids is None:
        return await list_all(lambda cursor: shop.knowledge.list_articles(cursor, _PAGE_SIZE, status=status))
    return [await shop.knowledge.get(article_id) for article_id in article_ids]


@asynccontextmanager
async def _open_live_articles() -> AsyncIterator[LiveArticles]:
    async with open_cli_services() as shop:
        live = LiveArticles(shop.db, shop.clock, b"")
        await live.refresh()
        await live.refresh_usage()
        yield live


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="a few words")],
    language: LanguageOption = None,
    public: Annotated[bool, typer.Option("--public", help="only what customers find")] = False,
    json: JsonOption = False,
) -> None:
    """Search the published articles, the best first."""

    async def work() -> list[FoundArticle]:
        wanted = parse_argument(query, SearchQuery, f"cannot search: {QUERY_INVALID}")
        async with _open_live_articles() as live:
            return await live.search(wanted, language, CUSTOMERS if public else STAFF, RESULTS)

    articles = run(work())
    if json:
        print_json(articles)
        return
    table = Table("article", "language", "title", "begins")
    for article in articles:
        table.add_row(article.article_id, article.language, article.title, article.excerpt)
    print_table(table, "nothing is found")


@app.command()
def missed(language: LanguageOption = None, json: JsonOption = False) -> None:
    """List what was searched and not found, the most frequent first."""

    async def work() -> list[MissedSearch]:
        async with open_cli_services() as shop:
            return await shop.knowledge.list_misses(language, _PAGE_SIZE)

    misses = run(work())
    if json:
        print_json(misses)
        return
    table = Table("language", "query", "searches", "last (UTC)")
    for miss in misses:
        table.add_row(miss.language, miss.query, str(miss.searches), format_time(miss.searched_at))
    print_table(table, "every search has found something")


class EvaluatedFile(msgspec.Struct, frozen=True):
    """The measures of a file, of all questions and by language.

    `missed` has the questions whose article is not the first."""

    total: SearchQuality
    languages: dict[Language, SearchQuality]
    missed: list[QuestionResult]


@app.command("evaluate")
def evaluate_file(
    file: CsvFile,
    min_mrr: Annotated[float, typer.Option(min=0, max=1, help="end with status 1 below this")] = 0,
    json: JsonOption = False,
) -> None:
    """Measure how well the search finds the right articles for questions, among all published ones.

    The CSV file has the columns question, language (zh or en), articles: the names of right ones, divided by blanks or
    |, the best first. MRR is the mean of 1 / rank of the first right article among ten.
    """

    async def work() -> list[QuestionResult]:
        questions = read_questions(read_lines(file))
        async with _open_live_articles() as live:
            return answer_questions(questions, live.index)

    results = run(work())
    with exit_on_error():
        by_language = {result.language: [r for r in results if r.language == result.language] for result in results}
        evaluations = {language: evaluate(part) for language, part in by_language.items()}
        evaluated = EvaluatedFile(evaluate(results), evaluations, [result for result in results if result.rank != 1])
    if json:
        print_json(evaluated)
    else:
        table = Table("questions", "number", "nDCG@10", "MRR", "recall@5", "nothing found")
        for name, measures in (*evaluations.items(), ("all", evaluated.total)):
            values = (measures.ndcg_at_10, measures.mrr, measures.recall_at_5, measures.without_hit)
            table.add_row(name, str(measures.questions), *(f"{value:.3f}" for value in values))
        print_table(table)
        for result in evaluated.missed:
            print_detail(
                f"  {result.question}: {' '.join(result.wanted)} has rank {result.rank or '-'}, the first is "
                f"{result.returned[0] if result.returned else '-'}"
            )
    if evaluated.total.mrr < min_mrr:
        print_detail(f"MRR is {evaluated.total.mrr:.3f}, below {min_mrr:g}")
        raise typer.Exit(1)
