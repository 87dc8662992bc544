"""Rows of freight templates."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from commerce.freight.model import (
    FreightRegion,
    FreightStep,
    FreightSummary,
    FreightTemplate,
    FreightTerms,
    FreightZone,
)
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

queries = load_queries(__package__)


async def list_templates(connection: Connection, after: str, count: int) -> list[FreightSummary]:
    """List templates by name, from the one after `after`."""
    return [FreightSummary(**row) for row in await connection.fetch(queries.list_templates, after, count)]


async def get_template(connection: Connection, name: str) -> FreightTemplate | None:
    """Read a template with its zones.

    Call inside a transaction of one snapshot, or one that holds `lock_name`.
    """
    row = await connection.fetchrow(queries.get_template, name)
    if row is None:
        return None
    regions: defaultdict[int, list[FreightRegion]] = defaultdict(list)
    for zone_no, *region in await connection.fetch(queries.list_regions, name):
        regions[zone_no].append(FreightRegion(*region))
    steps: defaultdict[int, list[FreightStep]] = defaultdict(list)
    for zone_no, *step in await connection.fetch(queries.list_steps, name):
        steps[zone_no].append(FreightStep(*step))
    zones = tuple(
        FreightZone(zone["name"], tuple(regions[zone_no]), tuple(steps[zone_no]), zone["free_from_minor"])
        for zone_no, zone in enumerate(await connection.fetch(queries.list_zones, name))
    )
    terms = FreightTerms(
        currency=row["currency"], charged_by=row["charged_by"], cod_fee_minor=row["cod_fee_minor"], zones=zones
    )
    return FreightTemplate(
        name=row["name"], version=row["version"], changed_at=row["changed_at"], actor=row["actor"], terms=terms
    )


async def read_version(connection: Connection, name: str) -> int | None:
    """Read the version of a template, None if there is no such template."""
    version: int | None = await connection.fetchval(queries.read_version, name)
    return version


async def lock_name(connection: Connection, name: str) -> None:
    """Keep others from creating or changing this template until the transaction ends."""
    await connection.execute(queries.lock_name, name)


async def share_template(connection: Connection, name: str) -> str | None:
    """Keep a template as it is until the transaction ends.

    Returns its currency, None if there is no such template.
    """
    currency: str | None = await connection.fetchval(queries.lock_template, name)
    return currency


async def put_template(connection: Connection, name: str, terms: FreightTerms, actor: str, now: datetime) -> int:
    """Insert a template or replace it whole, and return its version. Call inside a transaction."""
    version = int(
        await connection.fetchval(
            queries.put_template, name, terms.currency, terms.charged_by, terms.cod_fee_minor, now, actor
        )
    )
    await connection.execute(queries.delete_zones, name)
    zones = list(enumerate(terms.zones))
    await connection.copy_records_to_table(
        "freight_zones",
        columns=["template", "zone_no", "name", "free_from_minor"],
        records=[(name, zone_no, zone.name, zone.free_from_minor) for zone_no, zone in zones],
    )
    await connection.copy_records_to_table(
        "freight_regions",
        columns=["template", "zone_no", "region_no", "country", "province", "city"],
        records=[
            (name, zone_no, region_no, region.country, region.province, region.city)
            for zone_no, zone in zones
            for region_no, region in enumerate(zone.regions)
        ],
    )
    await connection.copy_records_to_table(
        "freight_steps",
        columns=["template", "zone_no", "above", "up_to", "per", "fee_minor"],
        records=[
            (name, zone_no, step.above, step.up_to, step.per, step.fee_minor)
            for zone_no, zone in zones
            for step in zone.steps
        ],
    )
    return version
