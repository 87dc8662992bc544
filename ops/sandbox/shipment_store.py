"""SQLite store of simulated shipments, their events and webhooks, which survives a kill.

A shipment is identified by its carrier in the sandbox and its tracking number, and by the shop's order number if it was
booked there. Times are milliseconds since 1970.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

_SCHEMA = """
CREATE TABLE IF NOT EXISTS shipments (
    carrier TEXT NOT NULL, tracking_no TEXT NOT NULL, order_no TEXT NOT NULL, company TEXT NOT NULL,
    phone_endings TEXT NOT NULL, origin TEXT NOT NULL, destination TEXT NOT NULL, webhook_url TEXT NOT NULL,
    salt TEXT NOT NULL, result_format TEXT NOT NULL, state TEXT NOT NULL, journey TEXT NOT NULL,
    steps_done INTEGER NOT NULL, last_step_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL,
    PRIMARY KEY (tracking_no, carrier));
CREATE INDEX IF NOT EXISTS shipments_booked ON shipments (carrier, order_no);
CREATE INDEX IF NOT EXISTS shipments_open ON shipments (carrier) WHERE state IN ('booked', 'in_transit');
CREATE INDEX IF NOT EXISTS shipments_newest ON shipments (created_ms);
CREATE TABLE IF NOT EXISTS events (
    carrier TEXT NOT NULL, tracking_no TEXT NOT NULL, event_no INTEGER NOT NULL, step TEXT NOT NULL,
    at_ms INTEGER NOT NULL, place TEXT NOT NULL, PRIMARY KEY (carrier, tracking_no, event_no));
CREATE TABLE IF NOT EXISTS webhooks (
    webhook_id TEXT PRIMARY KEY, carrier TEXT NOT NULL, tracking_no TEXT NOT NULL, event_no INTEGER NOT NULL,
    due_ms INTEGER NOT NULL, has_wrong_signature INTEGER NOT NULL, done INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS webhooks_due ON webhooks (due_ms) WHERE done = 0;
"""

State = Literal["refused", "booked", "in_transit", "delivered", "returned", "lost", "cancelled"]


class ShipmentStoreRefusal(Exception):
    """The carrier refuses. `code` is no_shipment, duplicate, cancelled or too_late."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class SimulatedShipment:
    """A shipment of a simulated carrier.

    `journey` holds all steps, of which `steps_done` are taken, the last at `last_step_ms`. `phone_endings` are the last
    four digits of the sender's and the receiver's numbers, separated by a comma. `company`, `salt` and `result_format`
    come with a subscription at kuaidi100: the company that has the shipment, and the form of webhooks.
    """

    carrier: str
    tracking_no: str
    order_no: str
    company: str
    phone_endings: str
    origin: str
    destination: str
    webhook_url: str
    salt: str
    result_format: str
    state: State
    journey: tuple[str, ...]
    steps_done: int
    last_step_ms: int
    created_ms: int

    @property
    def is_open(self) -> bool:
        return self.state in ("booked", "in_transit")

    @property
    def next_step(self) -> str:
        return self.journey[self.steps_done]


@dataclass(frozen=True, slots=True)
class SimulatedEvent:
    """A step that a shipment has taken; `event_no` counts from 0."""

    carrier: str
    tracking_no: str
    event_no: int
    step: str
    at_ms: int
    place: str


@dataclass(frozen=True, slots=True)
class DueShipmentWebhook:
    """A webhook to be sent about the events of a shipment up to `event_no`."""

    webhook_id: str
    carrier: str
    tracking_no: str
    event_no: int
    has_wrong_signature: bool
    attempts: int


@dataclass(frozen=True, slots=True)
class NewShipmentWebhook:
    """A webhook to be stored; a dropped one is stored as done.

    `copy` distinguishes the webhooks of one event.
    """

    copy: str
    event_no: int
    due_ms: int
    has_wrong_signature: bool = False
    done: bool = False


class ShipmentStore:
    """Shipments, events and webhooks of the carriers. Each method is one transaction."""

    def __init__(self, file: Path | str = ":memory:") -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + _SCHEMA)

    def close(self) -> None:
        self._db.close()

    def insert(self, shipment: SimulatedShipment) -> None:
        """Store a new shipment.

        Raises `ShipmentStoreRefusal` (duplicate) if its order number was used before, even by a cancelled booking.
        """
        if shipment.order_no and self.find_booking(shipment.carrier, shipment.order_no):
            raise ShipmentStoreRefusal("duplicate", "this order number was used before")
        self._write("INSERT INTO", shipment)

    def find(self, carrier: str, tracking_no: str) -> SimulatedShipment | None:
        return self._select_first("SELECT * FROM shipments WHERE carrier = ? AND tracking_no = ?", carrier, tracking_no)

    def find_booking(self, carrier: str, order_no: str) -> SimulatedShipment | None:
        return self._select_first("SELECT * FROM shipments WHERE carrier = ? AND order_no = ?", carrier, order_no)

    def get(self, tracking_no: str) -> SimulatedShipment:
        """Return the shipment of any carrier. Raises `ShipmentStoreRefusal` (no_shipment)."""
        shipment = self._select_first("SELECT * FROM shipments WHERE tracking_no = ?", tracking_no)
        if shipment is None:
            raise ShipmentStoreRefusal("no_shipment", "there is no such shipment")
        return shipment

    def list_open(self, carrier: str) -> list[SimulatedShipment]:
        """Return the shipments with steps to take."""
        return self._select("SELECT * FROM shipments WHERE carrier = ? AND state IN ('booked', 'in_transit')", carrier)

    def list_newest(self, limit: int) -> list[SimulatedShipment]:
        """Return the shipments of all carriers except refused ones, newest first."""
        return self._select("SELECT * FROM shipments WHERE state <> 'refused' ORDER BY created_ms DESC LIMIT ?", limit)

    def list_events(self, carrier: str, tracking_no: str, max_event_no: int = 2**31) -> list[SimulatedEvent]:
        """Return the events up to `max_event_no`, oldest first."""
        query = "SELECT * FROM events WHERE carrier = ? AND tracking_no = ? AND event_no <= ? ORDER BY event_no"
        return [SimulatedEvent(*row) for row in self._db.execute(query, (carrier, tracking_no, max_event_no))]

    def cancel(self, carrier: str, order_no: str) -> SimulatedShipment:
        """Cancel a booking before pickup. Raises `ShipmentStoreRefusal` (no_shipment, cancelled or too_late)."""
        shipment = self.find_booking(carrier, order_no)
        if shipment is None:
            raise ShipmentStoreRefusal("no_shipment", "there is no such order")
        if shipment.state == "cancelled":
            raise ShipmentStoreRefusal("cancelled", "the order was cancelled before")
        if shipment.state not in ("booked", "refused"):
            raise ShipmentStoreRefusal("too_late", "the shipment was picked up")
        cancelled = replace(shipment, state="cancelled")
        self._write("REPLACE INTO", cancelled)
        return cancelled

    def update(
        self,
        shipment: SimulatedShipment,
        event: SimulatedEvent | None = None,
        webhooks: Sequence[NewShipmentWebhook] = (),
    ) -> None:
        """Replace a shipment, and store its event and webhooks. An existing webhook stays unchanged."""
        with self._transaction():
            self._write("REPLACE INTO", shipment)
            if event is not None:
                values = (event.carrier, event.tracking_no, event.event_no, event.step, event.at_ms, event.place)
                self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", values)
            for webhook in webhooks:
                self._db.execute(
                    "INSERT OR IGNORE INTO webhooks "
                    "(webhook_id, carrier, tracking_no, event_no, due_ms, has_wrong_signature, done) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        f"{shipment.carrier}/{shipment.tracking_no}/{webhook.event_no}/{webhook.copy}",
                        *(shipment.carrier, shipment.tracking_no, webhook.event_no),
                        *(webhook.due_ms, webhook.has_wrong_signature, webhook.done),
                    ),
                )

    def totals(self, carrier: str) -> dict[str, int]:
        """Return counts over all time. `booked_more_than_once` counts order numbers with two tracking numbers."""
        query = "SELECT state, count(*) FROM shipments WHERE carrier = ? GROUP BY state"
        states = dict(self._db.execute(query, (carrier,)).fetchall())
        doubles = "SELECT 1 FROM shipments WHERE carrier = ? AND order_no <> '' GROUP BY order_no HAVING count(*) > 1"
        open_webhooks = "SELECT count(*) FROM webhooks WHERE carrier = ? AND done = 0"
        return {
            "shipments": sum(states.values()) - states.get("refused", 0),
            "booked_more_than_once": len(self._db.execute(doubles, (carrier,)).fetchall()),
            **{state: states.get(state, 0) for state in ("refused", "cancelled", "delivered", "returned", "lost")},
            "open_webhooks": self._db.execute(open_webhooks, (carrier,)).fetchone()[0],
        }

    # Webhooks.

    def list_due_webhooks(self, now_ms: int, limit: int) -> list[DueShipmentWebhook]:
        query = (
            "SELECT webhook_id, carrier, tracking_no, event_no, has_wrong_signature, attempts FROM webhooks "
            "WHERE done = 0 AND due_ms <= ? ORDER BY due_ms, event_no LIMIT ?"
        )
        return [DueShipmentWebhook(*row) for row in self._db.execute(query, (now_ms, limit))]

    def mark_attempted(self, webhook_id: str, *, done: bool, retry_ms: int) -> None:
        """Record an attempt: the webhook is done, or due again at `retry_ms`."""
        self._db.execute(
            "UPDATE webhooks SET attempts = attempts + 1, done = ?, due_ms = ? WHERE webhook_id = ?",
            (done, retry_ms, webhook_id),
        )

    def find_next_due_ms(self, now_ms: int) -> int | None:
        """Return the earliest time after `now_ms` at which a webhook is due."""
        query = "SELECT min(due_ms) FROM webhooks WHERE done = 0 AND due_ms > ?"
        due_ms: int | None = self._db.execute(query, (now_ms,)).fetchone()[0]
        return due_ms

    def _write(self, statement: str, shipment: SimulatedShipment) -> None:
        values = [getattr(shipment, name) for name in SimulatedShipment.__slots__]
        values[SimulatedShipment.__slots__.index("journey")] = " ".join(shipment.journey)
        self._db.execute(f"{statement} shipments VALUES ({', '.join('?' * len(values))})", values)

    def _select_first(self, query: str, *values: object) -> SimulatedShipment | None:
        return next(iter(self._select(query, *values)), None)

    def _select(self, query: str, *values: object) -> list[SimulatedShipment]:
        cursor = self._db.execute(query, values)
        rows = [dict(zip(SimulatedShipment.__slots__, row, strict=True)) for row in cursor]
        return [SimulatedShipment(**row | {"journey": tuple(row["journey"].split())}) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
