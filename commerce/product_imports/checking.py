"""The first step of an import: a report of every line, written in slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from commerce.kernel.postgres import Connection
from commerce.product_imports import store
from commerce.product_imports.file_parts import read_groups, read_numbered
from commerce.product_imports.model import Fault, LineFault, ProductLines
from commerce.product_imports.present_products import digest_product, read_present
from commerce.product_imports.product_csv import read_header
from commerce.product_imports.product_plan import ProductPlan, plan_product
from commerce.product_imports.store import LineCounts, LockedImport, NewLine

_PRODUCTS_PER_SLICE = 200
_MAX_FAULTS, _MAX_COLUMNS, _MAX_REASON_CHARS = 20, 50, 500


async def check_slice(connection: Connection, import_id: UUID, now: datetime) -> bool:
    """Check the next products of a file, and record its report. Returns whether lines are left.

    Call inside a transaction. Two calls for one import wait for each other."""
    current = await store.lock_import(connection, import_id)
    if current is None or current.status != "checking":
        return False
    if current.format == "csv" and current.checked_lines == 0:
        if not await _read_header(connection, current, now):
            return False
        current = await store.lock_import(connection, import_id)
        assert current is not None
    groups, is_end = await read_groups(connection, current, current.checked_lines + 1, _PRODUCTS_PER_SLICE)
    if groups:
        await _check(connection, current, groups, now)
    if is_end:
        await store.end_check(connection, import_id, now)
    return not is_end


async def _read_header(connection: Connection, current: LockedImport, now: datetime) -> bool:
    """Read the columns of a CSV file. Returns False if they are wrong: then the file is refused."""
    header = read_header(await read_numbered(connection, current))
    if not header.faults:
        lines = header.last_line - header.blank
        await store.set_header(connection, current.import_id, header.columns, lines, header.blank, now)
        return True
    faults = [_to_fault(fault) for fault in header.faults[:_MAX_FAULTS]]
    reason = "the header is wrong, so no product was read: " + "; ".join(fault.reason for fault in faults)
    records = min(1, current.lines - header.blank)
    continued = header.last_line - header.line if records else 0
    await store.refuse_import(connection, current.import_id, reason[:1000], records, header.blank, continued, now)
    if records:
        line = NewLine(header.line, "refused", header.line, None, None, [], faults)
        await store.insert_lines(connection, current.import_id, [line])
    return False


async def _check(connection: Connection, current: LockedImport, groups: Sequence[ProductLines], now: datetime) -> None:
    products = [group.product for group in groups if group.product is not None]
    present, facts = await read_present(connection, products)
    repeated = await _find_repeated(connection, current.import_id, groups)
    lines, items = list[NewLine](), list[tuple[int, str, bytes | None]]()
    for group in groups:
        plan = None
        faults = [*group.faults, *repeated.get(group.last_line, [])]
        if group.product is not None:
            plan = plan_product(group.product, present.get(group.product.product_id), facts)
            faults += plan.faults
        group_lines = _report(group, plan, faults)
        lines += group_lines
        if group.product is not None and any(line.outcome in ("created", "changed") for line in group_lines):
            digest = digest_product(present.get(group.product.product_id))
            items.append((group.product.line, group.product.product_id, digest))
    await store.insert_lines(connection, current.import_id, lines)
    await store.insert_items(connection, current.import_id, items)
    blank, last_line = sum(group.blank for group in groups), groups[-1].last_line
    outcomes = Counter(line.outcome for line in lines)
    continued = last_line - current.checked_lines - blank - len(lines)
    counts = LineCounts(
        checked_lines=last_line,
        blank=blank,
        continued=continued,
        created=outcomes["created"],
        changed=outcomes["changed"],
        unchanged=outcomes["unchanged"],
        refused=outcomes["refused"],
        products=len(items),
    )
    await store.add_counts(connection, current.import_id, counts, now)


def _report(group: ProductLines, plan: ProductPlan | None, faults: Sequence[Fault]) -> list[NewLine]:
    """Return the report of the lines of a product. All of them are refused if one is."""
    product = group.product
    skus = {} if product is None else {variant.line: variant.sku for variant in product.variants}
    if len(group.records) == 1 and product is not None and len(product.variants) != 1:
        skus = {}  # a line of JSON has several
    product_id = None if product is None else _shorten(product.product_id)
    reported = []
    for line in group.records:
        sku = _shorten(skus[line]) if line in skus else None
        if faults or plan is None:
            own = [_to_fault(fault) for fault in faults if fault.line == line][:_MAX_FAULTS]
            if not own:
                first = min((fault.line for fault in faults), default=line)
                own = [LineFault("", f"line {first} of the same product is refused")]
            reported.append(NewLine(line, "refused", group.records[0], product_id, sku, [], own))
        else:
            outcome, columns = plan.lines[line]
            columns = [column[:200] for column in columns[:_MAX_COLUMNS]]
            reported.append(NewLine(line, outcome, product_line(group), product_id, sku, columns, []))
    return reported


def product_line(group: ProductLines) -> int:
    """Return the line by which the product of a group is known."""
    return group.records[0] if group.product is None else group.product.line


async def _find_repeated(
    connection: Connection, import_id: UUID, groups: Sequence[ProductLines]
) -> dict[int, list[Fault]]:
    """Return faults of keys that stand in another product of the file, by the last line of the product."""
    keys: dict[str, int] = {}
    for group in groups:
        for key, line, _ in _keys(group):
            keys.setdefault(key, line)
    first_lines = await store.add_keys(connection, import_id, keys)
    repeated: dict[int, list[Fault]] = {}
    for group in groups:
        for key, line, reason in _keys(group):
            first = first_lines[key]
            if first not in group.records:
                fault = Fault(line, key.partition(":")[0], reason.format(first=first))
                repeated.setdefault(group.last_line, []).append(fault)
    return repeated


def _keys(group: ProductLines) -> list[tuple[str, int, str]]:
    """Return products, SKUs and barcodes, each with its line, and the reason if another product has it."""
    product = group.product
    if product is None or not product.product_id:
        return []
    keys = [("product_id:" + product.product_id, product.line, "its lines stand together, and the first is {first}")]
    for variant in product.variants:
        keys.append(("sku:" + variant.sku, variant.line, "another product has this SKU on line {first}"))
        barcode = variant.values.get("barcode")
        if isinstance(barcode, str):
            keys.append(
                ("barcode:" + barcode.rjust(14, "0"), variant.line, "another variant has this barcode on line {first}")
            )
    return [key for key in keys if len(key[0]) <= 200 and "\0" not in key[0]]


def _to_fault(fault: Fault) -> LineFault:
    return LineFault(_shorten(fault.column), fault.reason.replace("\0", "�")[:_MAX_REASON_CHARS])


def _shorten(text: str) -> str:
    """Return a text of a file as it can be stored."""
    return text[:200].encode("utf-8", "backslashreplace").decode().replace("\0", "�")
