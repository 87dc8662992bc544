"""`floodgate catalog category` and `floodgate catalog taxonomy`: the tree, one by one or whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from commerce.categories.errors import BadTaxonomy
from commerce.categories.model import (
    Category,
    CategoryAction,
    CategoryId,
    CategoryMerge,
    CategoryMove,
)
from commerce.categories.service import Categories
from commerce.categories.taxonomy import TaxonomyReport
from commerce.kernel.languages import choose_text
from commerce.kernel.types import Reason
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    parse_argument,
    print_detail,
    print_json,
    print_line,
    print_table,
    print_values,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import open_cli_services

category_app = typer.Typer(help="Show, move, merge and retire categories.", no_args_is_help=True)
taxonomy_app = typer.Typer(help="Import and export all categories and attributes.", no_args_is_help=True)
_MAX_SHOWN_FAULTS, _MAX_SHOWN_CHOICES = 20, 8
CategoryArgument = Annotated[str, typer.Argument(metavar="CATEGORY", help="the category's id")]
ReasonOption = Annotated[str, typer.Option(help="why; it is recorded")]
LanguageOption = Annotated[str, typer.Option(help="language of names, such as zh-CN")]


@category_app.command()
def show(category_id: CategoryArgument, language: LanguageOption = "zh", json: JsonOption = False) -> None:
    """Show a category with its path and the attributes of its products."""

    async def work() -> Category:
        async with open_cli_services() as shop:
            return await shop.categories.get(parse_argument(category_id, CategoryId))

    category = run(work())
    if json:
        print_json(category)
        return
    _print_category(category, language)
    table = Table("attribute", "name", "kind", "rule", "from", "choices")
    for attribute in category.attributes:
        choices = [
            choose_text(choice.names, [language], choice.choice_id)
            for choice in attribute.choices
            if choice.status == "active"
        ]
        shown = ", ".join(choices[:_MAX_SHOWN_CHOICES])
        table.add_row(
            *(attribute.attribute_id, choose_text(attribute.names, [language], "")),
            f"{attribute.kind} ({attribute.unit})" if attribute.unit else attribute.kind,
            *(attribute.rule, attribute.defined_in),
            f"{shown} and {len(choices) - _MAX_SHOWN_CHOICES} more" if len(choices) > _MAX_SHOWN_CHOICES else shown,
        )
    print_table(table, "its products have no attributes")


@category_app.command()
def move(
    category_id: CategoryArgument,
    reason: ReasonOption,
    to: Annotated[str | None, typer.Option(metavar="CATEGORY", help="its new parent")] = None,
    root: Annotated[bool, typer.Option("--root", help="it gets no parent")] = False,
) -> None:
    """Move a category with all that is below it."""
    if (to is None) is not root:
        raise typer.BadParameter("name the new parent with --to, or --root")
    body = {"parent_id": to, "reason": reason}
    _change(category_id, lambda shop, key: shop.move(key, parse_argument(body, CategoryMove), get_actor()))


@category_app.command()
def merge(
    category_id: CategoryArgument,
    into: Annotated[str, typer.Argument(metavar="INTO", help="the category that gets its products and children")],
    reason: ReasonOption,
) -> None:
    """Merge a category into another one; the old id says where its products went."""
    body = {"into": into, "reason": reason}
    _change(category_id, lambda shop, key: shop.merge(key, parse_argument(body, CategoryMerge), get_actor()))


@category_app.command()
def retire(category_id: CategoryArgument, reason: ReasonOption) -> None:
    """Retire a category: its products stay, and no product is put into it."""
    _change(category_id, lambda shop, key: shop.retire(key, _read_action(reason), get_actor()))


@category_app.command()
def restore(category_id: CategoryArgument, reason: ReasonOption) -> None:
    """Undo the retirement of a category."""
    _change(category_id, lambda shop, key: shop.restore(key, _read_action(reason), get_actor()))


def _read_action(reason: str) -> CategoryAction:
    return parse_argument({"reason": reason}, CategoryAction)


def _change(category_id: str, change: Callable[[Categories, str], Awaitable[Category]]) -> None:
    async def work() -> Category:
        async with open_cli_services() as shop:
            return await change(shop.categories, parse_argument(category_id, CategoryId))

    _print_category(run_change(work()), "zh")


def _print_category(category: Category, language: str) -> None:
    path = " > ".join(choose_text(part.names, [language], part.category_id) for part in category.path)
    names = ", ".join(f"{tag}: {name}" for tag, name in sorted(category.names.items()))
    status = f"{category.status}, merged into {category.merged_into}" if category.merged_into else category.status
    changed = f"{format_time(category.changed_at)} UTC by {category.changed_by}"
    print_values(
        [
            *(("category", category.category_id), ("names", names), ("path", path), ("status", status)),
            *(("version", category.version), ("changed", changed)),
        ]
    )


@taxonomy_app.command("import")
def import_folder(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, metavar="DIR")],
    check: Annotated[bool, typer.Option("--check", help="say what would change, and change nothing")] = False,
    reason: ReasonOption = "import of a taxonomy",
    json: JsonOption = False,
) -> None:
    """Import categories, attributes and choices with their names from files, whole or not at all.

    The format is that of Shopify's taxonomy, plain or packed with gzip: attributes.yml, categories/*.yml, and names in
    attributes.LANGUAGE.txt, attribute_values.LANGUAGE.txt and categories.LANGUAGE.txt. What the files do not name stays
    as it is. A repeated import changes nothing. A fault is printed with its file and line, and nothing is imported.
    """

    async def work() -> TaxonomyReport:
        recorded = parse_argument(reason, Reason)
        async with open_cli_services() as shop:
            try:
                return await shop.taxonomies.import_folder(folder, get_actor(), recorded, is_check=check)
            except BadTaxonomy as error:
                _print_faults(error)
                raise

    report = run(work()) if check else run_change(work())
    if json:
        print_json(report)
        return
    table = Table("file", "lines", "entries", "blank or comment")
    for file in report.files:
        table.add_row(file.file, str(file.lines), str(file.entries), str(file.blank))
    print_table(table)
    outcome = Table("", "added", "changed", "unchanged", "not in the files")
    for name, counts in (
        ("attributes", report.attributes),
        ("choices", report.choices),
        ("categories", report.categories),
    ):
        outcome.add_row(name, *map(str, (counts.added, counts.changed, counts.unchanged, counts.absent)))
    print_table(outcome)
    print_line("names: " + ", ".join(f"{language} {count}" for language, count in report.names.items()))
    for field, count in report.unknown_fields.items():
        print_detail(f"the field {field!r} has no meaning here and was left out {count} times")
    if not report.has_changes:
        print_line("nothing to change")
    elif check:
        print_line("this would change; import without --check")


def _print_faults(error: BadTaxonomy) -> None:
    faults = error.extra.get("errors", [])
    for fault in faults[:_MAX_SHOWN_FAULTS]:
        print_detail(f"  {fault['pointer']}: {fault['detail']}")
    if (count := error.extra.get("count", len(faults))) > _MAX_SHOWN_FAULTS:
        print_detail(f"  and {count - _MAX_SHOWN_FAULTS} more")


@taxonomy_app.command("export")
def export_folder(folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new or empty folder")]) -> None:
    """Export all categories and attributes to files, which can be imported again without a change."""

    async def work() -> dict[str, int]:
        async with open_cli_services() as shop:
            return await shop.taxonomies.export_folder(folder)

    lines = run(work())
    print_line(f"{len(lines)} files, {sum(lines.values())} lines: {folder}")
