"""Errors of imports of products."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchProductImport(NotFound):
    title = "There is no such import of products"


class ImportNotChecked(Conflict):
    code = "import_status"
    title = "The import cannot be applied now"
