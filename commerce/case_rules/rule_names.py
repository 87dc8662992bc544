"""Checks rules against the products and sales that there are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from commerce.case_rules import store
from commerce.case_rules.model import CaseRule
from commerce.case_rules.rule_checks import ExistingNames, check_rules
from commerce.kernel.postgres import Connection


async def check_named_rules(connection: Connection, rules: Sequence[CaseRule]) -> None:
    """Check rules as `check_rules`, with the products and sales of the shop. Raises `BadRules`."""
    conditions = [rule.conditions for rule in rules]
    skus = {sku for each in conditions for sku in (*(each.skus or ()), *(each.excluded_skus or ()))}
    sales = {sale_id for each in conditions for sale_id in each.sales or ()}
    known_skus = await store.list_known_skus(connection, sorted(skus))
    existing = ExistingNames(known_skus, await store.list_known_sales(connection, sorted(sales)))
    # Comparing hundreds of rows takes up to a second: requests are answered meanwhile.
    await asyncio.to_thread(check_rules, rules, existing)
