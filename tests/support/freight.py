"""Builds freight templates."""

from __future__ import annotations

from commerce.freight.model import (
    CompiledFreight,
    FreightRegion,
    FreightStep,
    FreightTemplate,
    FreightTerms,
    FreightZone,
)
from commerce.kernel.clock import from_ms


def template(
    *, step_g: int, fee_minor: int, free_from_minor: int | None = None, cod_fee_minor: int = 0, country: str = "*"
) -> CompiledFreight:
    """Build a template of one zone in which each begun step costs the same."""
    steps = (FreightStep(0, fee_minor, step_g), FreightStep(step_g, fee_minor, per=step_g))
    zone = FreightZone("all", (FreightRegion(country),), steps, free_from_minor)
    terms = FreightTerms(currency="CNY", charged_by="weight", cod_fee_minor=cod_fee_minor, zones=(zone,))
    return CompiledFreight(
        FreightTemplate(name="by-weight", version=1, changed_at=from_ms(0), actor="test", terms=terms)
    )
