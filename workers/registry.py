"""All workers by name."""

from __future__ import annotations

from workers.aftersales_worker import aftersales_worker
from workers.auditor import auditor
from workers.fulfilment_worker import fulfilment_worker
from workers.observer import observer
from workers.order_writer import order_writer
from workers.payment_worker import payment_worker
from workers.picture_worker import picture_worker
from workers.product_index import product_index
from workers.product_indexer import product_indexer
from workers.quality_worker import quality_worker
from workers.release_worker import release_worker
from workers.retention_worker import retention_worker
from workers.room_keeper import room_keeper
from workers.runtime import Worker
from workers.sale_sync import sale_sync
from workers.screening_worker import screening_worker
from workers.wait_list_keeper import wait_list_keeper

WORKERS: dict[str, Worker] = {
    "order_writer": order_writer,
    "release_worker": release_worker,
    "payment_worker": payment_worker,
    "fulfilment_worker": fulfilment_worker,
    "aftersales_worker": aftersales_worker,
    "picture_worker": picture_worker,
    "product_indexer": product_indexer,
    "quality_worker": quality_worker,
    "product_index": product_index,
    "sale_sync": sale_sync,
    "room_keeper": room_keeper,
    "screening_worker": screening_worker,
    "wait_list_keeper": wait_list_keeper,
    "retention_worker": retention_worker,
    "observer": observer,
    "auditor": auditor,
}
