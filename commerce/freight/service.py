"""Reads freight templates, replaces them, and keeps the compiled ones in memory."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Literal, NamedTuple

from commerce.freight import store
from commerce.freight.errors import NoSuchFreightTemplate
from commerce.freight.model import CompiledFreight, FreightSummary, FreightTemplate, FreightTerms
from commerce.freight.template_checks import check_terms
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database

_MAX_COMPILED = 1_000
PutStatus = Literal["added", "changed", "unchanged"]


class PutResult(NamedTuple):
    """A template's version after a put, with the effect that the put had."""

    status: PutStatus
    version: int


class Freight:
    """Freight templates over Postgres. Compiled ones are kept in memory until their version changes."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._compiled: dict[str, CompiledFreight] = {}

    async def list_templates(self, after: str | None, size: int) -> Page[FreightSummary]:
        """List templates ordered by name."""
        async with self._db.connection() as connection:
            rows = await store.list_templates(connection, after or "", size + 1)
        return to_page(rows, size, lambda template: template.name)

    async def get(self, name: str) -> FreightTemplate:
        """Read a template with its zones. Raises `NoSuchFreightTemplate`."""
        async with self._db.snapshot() as connection:
            template = await store.get_template(connection, name)
        if template is None:
            raise NoSuchFreightTemplate(f"there is no freight template {name!r}")
        return template

    async def compile(self, name: str) -> CompiledFreight:
        """Return the compiled template, with one short query if it is in memory.

        Raises `NoSuchFreightTemplate`.
        """
        async with self._db.connection() as connection:
            version = await store.read_version(connection, name)
        compiled = self._compiled.get(name)
        if compiled is None or compiled.version != version:
            # Many regions take a while, and orders are placed in this loop.
            compiled = await asyncio.to_thread(CompiledFreight, await self.get(name))
            if len(self._compiled) >= _MAX_COMPILED:
                self._compiled.clear()
            self._compiled[name] = compiled
        return compiled

    @staticmethod
    async def share_currency(connection: Connection, name: str) -> str:
        """Return the currency of a template, and keep the template as it is until the transaction ends.

        Raises `NoSuchFreightTemplate`.
        """
        currency = await store.share_template(connection, name)
        if currency is None:
            raise NoSuchFreightTemplate(f"there is no freight template {name!r}")
        return currency

    @staticmethod
    async def put(connection: Connection, name: str, terms: FreightTerms, actor: str, now: datetime) -> PutResult:
        """Create a template, or replace it whole if it differs.

        Call inside a transaction that raises the generation of the sales that use a changed template; with several
        templates in the order of their names. Raises `InvalidFreight`.
        """
        check_terms(terms)
        await store.lock_name(connection, name)
        template = await store.get_template(connection, name)
        if template is not None and template.terms == terms:
            return PutResult("unchanged", template.version)
        version = await store.put_template(connection, name, terms, actor, now)
        return PutResult("added" if template is None else "changed", version)
