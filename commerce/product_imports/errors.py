"""Errors of imports of products."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchProductImport(NotFound):
    title = "There is no such import of products"


class ImportNotChecked(Conflict):
    """The import cannot be applied now. `import_status` is the present status."""

    code = "import_status"
    title = "The import cannot be applied now"
