"""Builds freight templates."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from commerce.freight.model import (
    CompiledFreight,
    FreightRegion,
    FreightStep,
    FreightTemplate,
    FreightTerms,
    FreightZone,
)

FLAT = (FreightStep(0, 500),)


def make_zone(
    name: str, *regions: str, steps: tuple[FreightStep, ...] = FLAT, free_from: int | None = None
) -> FreightZone:
    """Make a zone of regions such as `CN/浙江/杭州`; an absent province is written as `GB//London`."""
    return FreightZone(name, tuple(FreightRegion(*region.split("/")) for region in regions), steps, free_from)


def make_terms(*zones: FreightZone, **values: Any) -> FreightTerms:
    return FreightTerms(**{"currency": "CNY", "charged_by": "weight", "zones": zones, **values})


def compile_terms(*zones: FreightZone, **values: Any) -> CompiledFreight:
    template = FreightTemplate(
        name="test",
        version=1,
        changed_at=datetime(2026, 11, 1, tzinfo=UTC),
        actor="test",
        terms=make_terms(*zones, **values),
    )
    return CompiledFreight(template)
