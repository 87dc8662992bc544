"""The gate before publication: a product of a low grade needs a reason, which its change keeps."""

from __future__ import annotations

from typing import Any

from commerce.catalog.model import Product
from commerce.kernel.postgres import Connection
from commerce.product_quality.errors import BelowPublishingGrade
from commerce.product_quality.grading import ProductGrading
from commerce.product_quality.model import LOWEST_POINTS, Grade

_SHOWN = 5


class PublishingGate:
    """Checks a product in the transaction that publishes it, by its facts of this moment."""

    def __init__(self, grading: ProductGrading, publish_from: Grade) -> None:
        self._grading = grading
        self._publish_from = publish_from

    async def check(self, connection: Connection, product: Product, anyway: str | None) -> dict[str, Any]:
        """Return what the change of a product that is published is to keep.

        Raises `BelowPublishingGrade` if its grade is too low and there is no reason to publish it all the same."""
        if self._publish_from == "E":
            return {}
        result = await self._grading.assess(connection, product)
        if result.points >= LOWEST_POINTS[self._publish_from]:
            return {}
        if anyway is None:
            advice = "; ".join(finding.detail for finding in result.findings[:_SHOWN])
            raise BelowPublishingGrade(
                f"cannot publish {product.product_id}: its grade is {result.grade} with {result.points} points, and "
                f"{self._publish_from} is needed. To publish it all the same, give a reason as `anyway`. "
                f"To improve it: {advice}",
                grade=result.grade,
                points=result.points,
                findings=result.findings,
            )
        return {"grade": [None, result.grade], "anyway": [None, anyway]}
