"""Sets what customers of a sale pay for freight, and tells all sales of a template when it changes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from commerce.freight.errors import InvalidFreight, NoSuchFreightTemplate
from commerce.freight.model import FreightTerms
from commerce.freight.service import Freight, PutStatus
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Connection, Database
from commerce.sales import store, term_store
from commerce.sales.errors import InvalidSaleState, NoSuchSale
from commerce.sales.model import Sale, SaleState
from commerce.sales.service import Sales

_MAX_NAMED_SALES = 10


class TemplateChange(msgspec.Struct, frozen=True):
    """The effect of putting a template. `sales` have a new generation by it."""

    name: str
    status: PutStatus
    version: int
    sales: list[str]


class _CheckedOnly(Exception):
    """Rolls back what was only to be checked."""


class SaleFreight:
    """Changes of freight templates and of those that sales use; `templates` reads them.

    Once Redis has the new generation, no order is accepted with the old freight.
    """

    def __init__(self, db: Database, sales: Sales, clock: Clock) -> None:
        self.templates = Freight(db)
        self._db = db
        self._sales = sales
        self._clock = clock

    async def assign(self, sale_id: str, name: str | None, actor: str) -> Sale:
        """Set the freight template of a sale, or with None take it away; what is set already stays as it is.

        Raises `NoSuchSale`, `InvalidSaleState` if it is closed, `InvalidFreight` if there is no such template or its
        currency is another.
        """
        async with self._db.transaction() as connection:
            # Before the sale is locked: who changes a template locks its sales after it.
            currency = None if name is None else await self._share_currency(connection, name)
            sale = await store.lock(connection, sale_id)
            if sale is None:
                raise NoSuchSale(f"there is no sale {sale_id!r}")
            if sale.state is SaleState.CLOSED:
                raise InvalidSaleState(f"cannot set the freight template: {sale_id} is closed")
            if currency is not None and currency != sale.currency:
                raise _invalid_name(f"the freight template {name!r} is in {currency}, and {sale_id} in {sale.currency}")
            if name != sale.freight_template:
                await term_store.set_freight_template(connection, sale_id, name)
                detail = {"template": [sale.freight_template, name]}
                await store.log(connection, sale_id, from_ms(self._clock.now_ms()), actor, "freight", detail)
        await self._sales.sync_to_redis(sale_id)
        return await self._sales.get(sale_id)

    async def put_templates(
        self, templates: Mapping[str, FreightTerms], actor: str, *, check_only: bool = False
    ) -> list[TemplateChange]:
        """Create or replace templates by name, all or none, and raise the generation of their sales.

        A template that is the same stays unchanged, and so do closed sales. With `check_only` the effect is returned
        and undone. Raises `InvalidFreight` with the faults of the first template that has any, or if a sale that uses
        it is in another currency.
        """
        changes: list[TemplateChange] = []
        try:
            async with self._db.transaction() as connection:
                changes = await self._put(connection, templates, actor)
                if check_only:
                    raise _CheckedOnly
        except _CheckedOnly:
            return changes
        for change in changes:
            for sale_id in change.sales:
                await self._sales.sync_to_redis(sale_id)
        return changes

    async def _put(
        self, connection: Connection, templates: Mapping[str, FreightTerms], actor: str
    ) -> list[TemplateChange]:
        now = from_ms(self._clock.now_ms())
        # All templates before any sale, as `assign` locks them: else the two could wait for each other.
        results = [
            (name, await Freight.put(connection, name, terms, actor, now)) for name, terms in sorted(templates.items())
        ]
        changes = []
        for name, result in results:
            sales = []
            if result.status == "changed":
                await _check_currency(connection, name, templates[name].currency)
                detail = {"template": name, "version": result.version}
                sales = await term_store.raise_generations(connection, name, now, actor, detail)
            changes.append(TemplateChange(name, result.status, result.version, sales))
        return changes

    async def _share_currency(self, connection: Connection, name: str) -> str:
        try:
            return await Freight.share_currency(connection, name)
        except NoSuchFreightTemplate as error:
            raise _invalid_name(error.detail) from None


def _invalid_name(detail: str) -> InvalidFreight:
    return InvalidFreight(detail, errors=[{"pointer": "/name", "detail": detail}])


async def _check_currency(connection: Connection, name: str, currency: str) -> None:
    others = await term_store.list_freight_mismatches(connection, name, currency, _MAX_NAMED_SALES)
    if others:
        detail = f"{', '.join(others)} use {name!r} and are not in {currency}; assign them another template first"
        raise InvalidFreight(detail, errors=[{"pointer": "/currency", "detail": detail}])
