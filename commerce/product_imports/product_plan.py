"""The plan of an imported product: its content, variants and status, or faults. It reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from commerce.catalog.errors import DuplicateVariant
from commerce.catalog.model import (
    MAX_VARIANTS,
    Brand,
    Description,
    Options,
    Product,
    ProductContent,
    ProductId,
    ProductStatus,
    ProductText,
    SearchWord,
    Variant,
)
from commerce.catalog.product_rules import (
    Errors,
    check_content,
    check_distinct,
    check_option_values,
    content_of,
    describe_product_changes,
    describe_variant_changes,
)
from commerce.categories.attribute_values import AttributeDefinition
from commerce.categories.model import CategoryId
from commerce.kernel.spreadsheets import explain_lost_zeros, explain_scientific
from commerce.kernel.types import Name, explain_mismatch
from commerce.product_imports.attribute_cells import read_cell
from commerce.product_imports.model import Cell, Fault, ImportedProduct, LineOutcome
from commerce.product_imports.variant_plan import PlannedVariant, VariantFacts, plan_variant

_TEXT_KINDS: dict[str, Any] = {"name": Name, "description": Description | None, "search_words": list[SearchWord]}


class Facts(NamedTuple):
    """Facts of the shop that some products of a file need.

    `categories` maps a category to the reason why no product may be put into it, an empty text if there is none;
    `product_ids` are those of the ids in question that there are."""

    definitions: Mapping[str, Mapping[str, AttributeDefinition]]
    categories: Mapping[str, str]
    product_ids: frozenset[str]
    variants: VariantFacts


class LinePlan(NamedTuple):
    """The outcome of a line, and the columns that change."""

    outcome: LineOutcome
    columns: list[str]


class ProductPlan(NamedTuple):
    """The plan of a product. With `faults` nothing is stored.

    `variants` has those that are new or change, `diff` is for the history of the product, `lines` for the report."""

    faults: list[Fault]
    content: ProductContent
    status: ProductStatus
    variants: dict[str, PlannedVariant]
    diff: dict[str, list[Any]]
    lines: dict[int, LinePlan]


def plan_product(read: ImportedProduct, present: Product | None, facts: Facts) -> ProductPlan:
    """Compare a product of a file with the present one, and check what it would become."""
    return _Planner(read, present, facts).plan()


class _Planner:
    """Plans one product, and collects its faults."""

    def __init__(self, read: ImportedProduct, present: Product | None, facts: Facts) -> None:
        self._read = read
        self._present = present
        self._facts = facts
        self._faults: list[Fault] = []
        self._kept_variants = {} if present is None else {variant.sku: variant for variant in present.variants}

    def plan(self) -> ProductPlan:
        self._check_id()
        texts = self._plan_texts()
        category_id = self._plan_category()
        definitions = {} if category_id is None else self._facts.definitions.get(category_id, {})
        content = ProductContent(
            texts=texts,
            category_id=category_id,
            brand=self._take("brand", Brand | None, None),
            attributes=self._plan_attributes(definitions),
            options=self._take("options", Options, []),
        )
        status: ProductStatus = self._take("status", ProductStatus, "draft")
        variants = self._plan_variants(content, definitions)
        if not self._faults:
            self._check_together(content, status, variants, definitions)
        return self._describe(content, status, variants)

    def _fault(self, column: str, reason: str, line: int | None = None) -> None:
        self._faults.append(Fault(self._read.line if line is None else line, column, reason))

    def _convert(self, column: str, kind: Any, value: Any) -> Any:
        """Check the type of a value; one that does not fit is a fault, and stands as it is."""
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            self._fault(column, explain_mismatch(error))
            return value

    def _take(self, name: str, kind: Any, default: Any) -> Any:
        """Return a value of the file, or the present one."""
        kept = default if self._present is None else getattr(self._present, name)
        value = self._read.values.get(name, kept)
        return kept if value == kept else self._convert(name, kind, value)

    def _check_id(self) -> None:
        product_id = self._read.product_id
        if reason := explain_scientific(product_id):
            self._fault("product_id", reason)
            return
        self._convert("product_id", ProductId, product_id)
        if self._present is None and (reason := explain_lost_zeros(product_id, self._facts.product_ids)):
            self._fault("product_id", reason)

    def _plan_texts(self) -> dict[str, ProductText]:
        texts = {} if self._present is None else dict(self._present.texts)
        for language, words in self._read.texts.items():
            kept = texts.pop(language, None)
            values: dict[str, Any] = {} if kept is None else msgspec.structs.asdict(kept)
            for name, value in (words or {}).items():
                if _with_line_feeds(values.get(name)) != value:
                    values[name] = (
                        value if value is None else self._convert(f"{name}:{language}", _TEXT_KINDS[name], value)
                    )
            if words is None or not any(values.values()):
                continue
            if not values.get("name"):
                self._fault(f"name:{language}", "it is empty, and the language has a description or search words")
                continue
            if len(values.get("search_words") or []) > 50:
                self._fault(f"search_words:{language}", "more than 50 search words")
            texts[language] = ProductText(
                name=values["name"],
                description=values.get("description"),
                search_words=values.get("search_words") or [],
            )
        if not texts:
            self._fault("name", "a product needs a name in one language at least")
        return dict(sorted(texts.items()))

    def _plan_category(self) -> str | None:
        kept = None if self._present is None else self._present.category_id
        category_id: str | None = self._take("category_id", CategoryId | None, None)
        if category_id not in (None, kept):
            reason = self._facts.categories.get(str(category_id), f"there is no category {str(category_id)[:80]!r}")
            if reason and not any(fault.column == "category_id" for fault in self._faults):
                self._fault("category_id", reason)
        return category_id

    def _plan_attributes(self, definitions: Mapping[str, AttributeDefinition]) -> dict[str, Any]:
        attributes = {} if self._present is None else dict(self._present.attributes)
        for name, value in self._read.attributes.items():
            kept = attributes.pop(name, None)
            if value is None:
                continue
            attributes[name] = value
            if isinstance(value, Cell):
                attributes[name], reason = read_cell(value, definitions.get(name), kept)
                if reason:
                    self._fault(f"attribute:{name}", reason)
        if len(attributes) > 200:
            self._fault("attributes", "more than 200 attributes")
        return attributes

    def _plan_variants(
        self, content: ProductContent, definitions: Mapping[str, AttributeDefinition]
    ) -> dict[str, PlannedVariant]:
        planned = {}
        currency = next((variant.currency for variant in self._kept_variants.values()), None)
        for read in self._read.variants:
            variant, faults = plan_variant(
                *(read, self._read.product_id, self._kept_variants, currency),
                *(content.options, definitions, self._facts.variants),
            )
            self._faults += faults
            if variant is not None:
                planned[read.sku] = variant
                currency = currency or variant.currency
        return planned

    def _check_together(
        self,
        content: ProductContent,
        status: ProductStatus,
        planned: Mapping[str, PlannedVariant],
        definitions: Mapping[str, AttributeDefinition],
    ) -> None:
        """Check what one value says about another: attributes, options, status, and variants among each other."""
        before = None if self._present is None else content_of(self._present)
        is_same_kind = before is not None and (content.category_id, content.options) == (
            before.category_id,
            before.options,
        )
        is_same_category = before is not None and content.category_id == before.category_id
        kept = before.attributes if before is not None and is_same_category else {}
        is_same = is_same_kind and before is not None and content.attributes == before.attributes
        old_status = None if self._present is None else self._present.status
        must_be_complete = status == "on_sale" and not (is_same and old_status == "on_sale")
        options = dict.fromkeys(before.options) if before is not None and is_same_kind else {}
        self._add(
            check_content(content, definitions, {**kept, **options}, must_be_complete=must_be_complete), self._read.line
        )
        lines = {variant.sku: variant.line for variant in self._read.variants}
        values = {sku: variant.option_values for sku, variant in self._kept_variants.items()}
        values = {sku: old for sku, old in values.items() if sku not in planned}
        values.update({sku: variant.option_values for sku, variant in planned.items()})
        for sku, option_values in values.items():
            old = self._kept_variants.get(sku)
            if not (is_same_kind and old is not None and old.option_values == option_values):
                kept_values = old.option_values if old is not None and is_same_category else {}
                errors = check_option_values(content.options, option_values, definitions, kept_values, "/option")
                self._add(errors, lines.get(sku, self._read.line), sku)
        self._check_variants(values, planned, lines)
        if status == "draft" and old_status not in (None, "draft"):
            self._fault("status", f"the product is {old_status}, and becomes no draft again: use retired")
        elif status == "on_sale" and not values:
            self._fault("status", "a product on sale needs a variant with a SKU and a price")

    def _check_variants(
        self, values: Mapping[str, Any], planned: Mapping[str, PlannedVariant], lines: Mapping[str, int]
    ) -> None:
        if len(values) > MAX_VARIANTS:
            self._fault("sku", f"{len(values)} variants: a product has {MAX_VARIANTS} at most")
        try:
            check_distinct(values)
        except DuplicateVariant as error:
            sku = error.detail.partition(" ")[0]
            self._fault("sku", error.detail, lines.get(sku, self._read.line))
        barcodes: dict[str, str] = {}
        variants: dict[str, Variant | PlannedVariant] = {**self._kept_variants, **planned}
        for sku, item in variants.items():
            other = sku if item.barcode is None else barcodes.setdefault(item.barcode.rjust(14, "0"), sku)
            if other != sku:
                reason = f"{other} has the barcode {item.barcode}, too: each variant has its own"
                self._fault("barcode", reason, lines.get(sku, self._read.line))
        currencies = {sku: variant.currency for sku, variant in variants.items()}
        first = next(iter(currencies), None)
        for sku, currency in currencies.items():
            if first is not None and currency != currencies[first]:
                detail = f"{first} is priced in {currencies[first]}, and {sku} in {currency}"
                reason = f"{detail}: all variants of a product have one currency"
                self._fault("currency", reason, lines.get(sku, lines.get(first, self._read.line)))
                return

    def _add(self, errors: Errors, line: int, sku: str = "") -> None:
        """Add faults with JSON pointers, by the columns of these."""
        of_sku = f"{sku}: " if sku and line == self._read.line else ""
        for error in errors:
            kind, _, rest = error["pointer"].lstrip("/").partition("/")
            name = rest.split("/")[0].replace("~1", "/").replace("~0", "~")
            column = "options" if kind == "options" else {"attributes": "attribute"}.get(kind, kind) + f":{name}"
            self._fault(column.rstrip(":"), of_sku + error["detail"], line)

    def _describe(
        self, content: ProductContent, status: ProductStatus, planned: Mapping[str, PlannedVariant]
    ) -> ProductPlan:
        if self._faults:
            return ProductPlan(self._faults, content, status, {}, {}, {})
        diff: dict[str, list[Any]] = describe_product_changes(self._present, content)
        if self._present is None or status != self._present.status:
            diff["status"] = [None if self._present is None else self._present.status, status]
        is_new = self._present is None
        columns: dict[int, list[str]] = {self._read.line: [_name_column(name) for name in diff]}
        outcomes: dict[int, LineOutcome] = {self._read.line: "created" if is_new else "unchanged"}
        changed = {}
        for read in self._read.variants:
            variant, old = planned[read.sku], self._kept_variants.get(read.sku)
            own = describe_variant_changes(read.sku, old, variant.describe())
            names = [name.rpartition("/")[2] for name in own]
            if old is None or (old.price, old.currency) != (variant.price, variant.currency):
                names += ["price"] if old is None or old.currency == variant.currency else ["price", "currency"]
            if names:
                changed[read.sku] = variant
            diff.update(own)
            columns.setdefault(read.line, []).extend(names)
            outcome: LineOutcome = "created" if is_new or old is None else "unchanged"
            if outcomes.setdefault(read.line, outcome) == "unchanged" and read.line != self._read.line:
                outcomes[read.line] = outcome
        lines = {
            line: LinePlan("changed", _unique(columns[line]))
            if outcome == "unchanged" and columns[line]
            else LinePlan(outcome, [])
            for line, outcome in outcomes.items()
        }
        return ProductPlan([], content, status, changed, diff, lines)


def _unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _name_column(field: str) -> str:
    """Return the column of a field in the history of a product."""
    kind, *rest = field.split("/")
    if kind == "texts":
        return f"{rest[1]}:{rest[0]}"
    return f"attribute:{'/'.join(rest)}" if kind == "attributes" else field


def _with_line_feeds(value: Any) -> Any:
    """Return a text as a file has it."""
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value
