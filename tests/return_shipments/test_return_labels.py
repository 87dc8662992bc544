"""Labels of return shipments: what is on them, and which have none."""

from __future__ import annotations

import re
from typing import Any

import pypdfium2
import pytest
import zxingcpp

from commerce.return_shipments.errors import NoSuchReturnShipment
from commerce.return_shipments.return_labels import ReturnLabels
from commerce.shipping.errors import NoLabel
from tests.support.fake_carrier import refusal
from tests.support.return_shop import ReturnShop

DPI = 200


def _read(content: bytes) -> tuple[str, set[str]]:
    """Return the text of a label and the contents of its codes."""
    [page] = pypdfium2.PdfDocument(content)
    image: Any = page.render(scale=DPI / 72).to_pil()
    codes = {code.text for code in zxingcpp.read_barcodes(image)}
    return re.sub(r"\s+", " ", page.get_textpage().get_text_bounded()), codes


async def test_label_of_booked_return_names_customer_warehouse_and_number(returns: ReturnShop) -> None:
    labels = ReturnLabels(returns.ship.shop.db)
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    id_ = await returns.request(case_id)
    with pytest.raises(NoLabel, match="no carrier is booked for it yet"):
        await labels.print_label(id_)
    await returns.work_until_idle()
    shipment = await returns.get(id_)
    text, codes = _read(await labels.print_label(id_, "user"))
    assert codes == {shipment.tracking_no}
    for expected in ("CHEAP", "退货 Return", "1 / 1", "571-A", shipment.from_address.name, shipment.from_address.phone):
        assert expected in text
    assert "HOLD" not in text
    await returns.cancel(id_)
    assert "HOLD" in _read(await labels.print_label(id_))[0]
    await returns.work_until_idle()
    with pytest.raises(NoLabel, match="it is cancelled"):
        await labels.print_label(id_)


async def test_label_counts_return_shipments_of_the_case_that_are_not_cancelled(returns: ReturnShop) -> None:
    labels = ReturnLabels(returns.ship.shop.db)
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    cancelled, first, second = [await returns.request(case_id) for _ in range(3)]
    await returns.work_until_idle()
    assert "2 / 3" in _read(await labels.print_label(first))[0]
    await returns.cancel(cancelled)
    await returns.work_until_idle()
    assert "1 / 2" in _read(await labels.print_label(first))[0]
    assert "2 / 2" in _read(await labels.print_label(second))[0]


async def test_label_of_refused_own_or_another_customers_return_is_refused(returns: ReturnShop) -> None:
    labels = ReturnLabels(returns.ship.shop.db)
    own = await returns.set_tracking(await returns.add_case(await returns.deliver_order()), "zto", "ZT1")
    with pytest.raises(NoLabel, match="own carrier"):
        await labels.print_label(own)
    case_id = await returns.add_case(await returns.deliver_order(user="other"), user="other")
    for carrier in returns.ship.carriers.values():
        carrier.next_outcomes = [refusal()]
    refused = await returns.request(case_id)
    await returns.work_until_idle()
    with pytest.raises(NoLabel, match="no carrier is booked"):
        await labels.print_label(refused, "other")
    with pytest.raises(NoSuchReturnShipment):
        await labels.print_label(refused, "user")
