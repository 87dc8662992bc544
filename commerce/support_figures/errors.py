"""Problems of reports."""

from __future__ import annotations

from commerce.kernel.errors import Invalid


class ReportTooLarge(Invalid):
    title = "The report has too much to count"
