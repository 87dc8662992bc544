"""Changes of a sale: what may change in which state, and which ends make sense."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from msgspec import UNSET, UnsetType

from commerce.kernel.errors import Invalid
from commerce.kernel.moments import Moment, WithMoments
from commerce.kernel.money import Currency, MoneyError, minor_digits
from commerce.kernel.types import Name
from commerce.sales.errors import InvalidSaleState
from commerce.sales.model import PaymentSeconds, Sale, SaleState

_END_MARGIN = timedelta(seconds=10)
"""Time to publish another end before the present one: Redis would close the sale and open it again."""


class ChangedSale(WithMoments, frozen=True, forbid_unknown_fields=True):
    """Changes of a sale: an absent member leaves its value, and null removes the end.

    A sale that was opened keeps its currency and its opening time.
    """

    title: Name | UnsetType = UNSET
    currency: Currency | UnsetType = UNSET
    opens_at: Moment | UnsetType = UNSET
    closes_at: Moment | UnsetType | None = UNSET
    pay_within_s: PaymentSeconds | UnsetType = UNSET

    def apply_to(self, sale: Sale) -> Sale:
        """Return the sale with these changes."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return msgspec.structs.replace(sale, **{name: value for name, value in values.items() if value is not UNSET})


def list_changes(sale: Sale, changed: Sale) -> dict[str, list[object]]:
    """Return the old and the new value of each member that a change of the sale sets."""
    values = {name: [getattr(sale, name), getattr(changed, name)] for name in ChangedSale.__struct_fields__}
    return {name: value for name, value in values.items() if value[0] != value[1]}


def check_change(sale: Sale, changed: Sale, now: datetime) -> None:
    """Check that a sale may change like this.

    Raises `InvalidSaleState` if its state does not allow it, `Invalid` if the new values make no sense.
    """
    changes = list_changes(sale, changed)
    if sale.state is SaleState.CLOSED:
        raise InvalidSaleState(f"cannot change {sale.sale_id}: it is closed; create another sale")
    if sale.state is not SaleState.DRAFT and (fixed := sorted({"currency", "opens_at"} & changes.keys())):
        raise InvalidSaleState(
            f"cannot change {' and '.join(fixed)} of {sale.sale_id}: it was opened; pause it until it should take "
            "orders, or close it and create another sale"
        )
    _check_currency(changed.currency)
    _check_times(changed.opens_at, changed.closes_at)
    if "closes_at" not in changes:
        return
    if sale.state is not SaleState.DRAFT and sale.closes_at is not None and sale.closes_at <= now + _END_MARGIN:
        raise InvalidSaleState(
            f"cannot move the end of {sale.sale_id}: it is over, or will be within seconds; create another sale"
        )
    if changed.closes_at is not None and changed.closes_at <= now:
        raise _invalid("closes_at", "is past; name a later moment, or end an opened sale with `floodgate sale close`")


def _check_currency(currency: str) -> None:
    """Raise `Invalid` if a currency is unknown."""
    try:
        minor_digits(currency)
    except MoneyError as error:
        raise Invalid(str(error)) from None


def _check_times(opens_at: datetime, closes_at: datetime | None) -> None:
    """Raise `Invalid` if a sale would end before it opens."""
    if closes_at is not None and closes_at <= opens_at:
        raise _invalid("closes_at", "must be after opens_at")


def _invalid(member: str, detail: str) -> Invalid:
    return Invalid(f"{member} {detail}", errors=[{"pointer": f"/{member}", "detail": detail}])
