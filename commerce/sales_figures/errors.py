"""Problems of reports on sales."""

from __future__ import annotations

from commerce.kernel.errors import Invalid


class SalesReportTooLarge(Invalid):
    title = "The report on sales has too many rows"
