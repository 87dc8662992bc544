"""All workers by their names."""

from __future__ import annotations

from workers.auditor import auditor
from workers.observer import observer
from workers.order_writer import order_writer
from workers.payment_driver import payment_driver
from workers.release_driver import release_driver
from workers.runtime import Worker
from workers.sale_keeper import sale_keeper
from workers.shipment_driver import shipment_driver

WORKERS: dict[str, Worker] = {
    "order_writer": order_writer,
    "release_driver": release_driver,
    "payment_driver": payment_driver,
    "shipment_driver": shipment_driver,
    "sale_keeper": sale_keeper,
    "observer": observer,
    "auditor": auditor,
}
