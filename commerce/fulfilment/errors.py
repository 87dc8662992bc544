"""Problems that fulfilment answers with."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchWave(NotFound):
    title = "There is no such wave"


class NotToBePlanned(Conflict):
    code = "not_to_be_planned"
    title = "The order does not wait to be planned again"


class NoCarrierChoice(NotFound):
    title = "No carrier was chosen"
