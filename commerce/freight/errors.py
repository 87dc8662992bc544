"""Problems that freight answers with."""

from __future__ import annotations

from commerce.kernel.errors import Invalid, NotFound


class NoFreight(Invalid):
    """The shop does not deliver to the address, or not that much."""

    title = "The shop does not deliver this there"


class InvalidFreight(Invalid):
    """The template breaks a rule. `errors` has a JSON pointer into its terms for each fault."""

    title = "The freight template cannot be used"


class NoSuchFreightTemplate(NotFound):
    title = "There is no such freight template"
