"""Problems that fulfilment answers with."""

from __future__ import annotations

from commerce.kernel.errors import NotFound


class NoCarrierChoice(NotFound):
    title = "No carrier was chosen"
