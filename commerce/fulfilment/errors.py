"""Problems that fulfilment answers with."""

from __future__ import annotations

from commerce.kernel.errors import NotFound


class NoSuchWave(NotFound):
    title = "There is no such wave"


class NoSuchUnplannedOrder(NotFound):
    title = "The order is not among those that could not be planned"


class NoCarrierChoice(NotFound):
    title = "No carrier was chosen"
