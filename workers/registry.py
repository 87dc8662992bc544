"""All workers by their names."""

from __future__ import annotations

from workers.auditor import auditor
from workers.observer import observer
from workers.order_writer import order_writer
from workers.payment_driver import payment_worker
from workers.release_driver import release_worker
from workers.runtime import Worker
from workers.sale_keeper import sale_sync
from workers.shipment_driver import fulfilment_worker

WORKERS: dict[str, Worker] = {
    "order_writer": order_writer,
    "release_driver": release_worker,
    "payment_driver": payment_worker,
    "shipment_driver": fulfilment_worker,
    "sale_keeper": sale_sync,
    "observer": observer,
    "auditor": auditor,
}
