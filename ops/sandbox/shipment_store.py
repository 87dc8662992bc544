"""The books of the sandbox's carriers: parcels, what happened to them, what is to be pushed. In SQLite, so that a kill
loses nothing.

A parcel is known by its carrier's name in the sandbox and its number, and by the shop's order number where it was
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
CREATE TABLE IF NOT EXISTS parcels (
    carrier TEXT NOT NULL, number TEXT NOT NULL, order_no TEXT NOT NULL, company TEXT NOT NULL, phones TEXT NOT NULL,
    origin TEXT NOT NULL, destination TEXT NOT NULL, notify_url TEXT NOT NULL, salt TEXT NOT NULL,
    detail TEXT NOT NULL, state TEXT NOT NULL, road TEXT NOT NULL, step INTEGER NOT NULL,
    since_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL, PRIMARY KEY (number, carrier));
CREATE INDEX IF NOT EXISTS parcels_booked ON parcels (carrier, order_no);
CREATE INDEX IF NOT EXISTS parcels_open ON parcels (carrier) WHERE state IN ('booked', 'on_the_way');
CREATE INDEX IF NOT EXISTS parcels_last ON parcels (created_ms);
CREATE TABLE IF NOT EXISTS events (
    carrier TEXT NOT NULL, number TEXT NOT NULL, n INTEGER NOT NULL, step TEXT NOT NULL, at_ms INTEGER NOT NULL,
    place TEXT NOT NULL, PRIMARY KEY (carrier, number, n));
CREATE TABLE IF NOT EXISTS pushes (
    push_id TEXT PRIMARY KEY, carrier TEXT NOT NULL, number TEXT NOT NULL, n INTEGER NOT NULL, due_ms INTEGER NOT NULL,
    wrong INTEGER NOT NULL, done INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS pushes_due ON pushes (due_ms) WHERE done = 0;
"""

State = Literal["refused", "booked", "on_the_way", "delivered", "returned", "lost", "cancelled"]


class ShipmentStoreRefusal(Exception):
    """The carrier says no. `code` is one of: no_parcel, known, cancelled, too_late."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class SimulatedShipment:
    """`road` are the steps that it takes, `step` of them are done, the last at `since_ms`. `phones` are the last four
    digits of the sender's and the receiver's. `company`, `salt` and `detail` are what kuaidi100 is told with a
    subscription: who has the parcel, and the form of pushes."""

    carrier: str
    number: str
    order_no: str
    company: str
    phones: str
    origin: str
    destination: str
    notify_url: str
    salt: str
    detail: str
    state: State
    road: tuple[str, ...]
    step: int
    since_ms: int
    created_ms: int

    @property
    def open(self) -> bool:
        return self.state in ("booked", "on_the_way")


@dataclass(frozen=True, slots=True)
class Event:
    """The `n`-th step of a parcel, counted from 0."""

    carrier: str
    number: str
    n: int
    step: str
    at_ms: int
    place: str


@dataclass(frozen=True, slots=True)
class DuePush:
    """News of a parcel up to its `n`-th event that is to be sent; `wrong`: with a signature that is not right."""

    notice_id: str
    carrier: str
    number: str
    n: int
    wrong: bool
    attempts: int


@dataclass(frozen=True, slots=True)
class NewPush:
    """`which` tells pushes about the same event apart; one that is never sent is entered as done."""

    which: str
    n: int
    due_ms: int
    wrong: bool = False
    done: bool = False


class ShipmentStore:
    """The books of all carriers. Each method is one transaction."""

    def __init__(self, file: Path | str = ":memory:") -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + _SCHEMA)

    def close(self) -> None:
        self._db.close()

    def enter(self, parcel: SimulatedShipment) -> None:
        """A parcel comes into being. Raises `known` if its order number was used before, whatever became of that."""
        if parcel.order_no and self.booking(parcel.carrier, parcel.order_no):
            raise ShipmentStoreRefusal("known", "this order number was used before")
        self._put("INSERT INTO", parcel)

    def parcel(self, carrier: str, number: str) -> SimulatedShipment | None:
        return self._one("SELECT * FROM parcels WHERE carrier = ? AND number = ?", carrier, number)

    def booking(self, carrier: str, order_no: str) -> SimulatedShipment | None:
        return self._one("SELECT * FROM parcels WHERE carrier = ? AND order_no = ?", carrier, order_no)

    def find(self, number: str) -> SimulatedShipment:
        """Whichever carrier has it. Raises `no_parcel`."""
        found = self._one("SELECT * FROM parcels WHERE number = ?", number)
        if found is None:
            raise ShipmentStoreRefusal("no_parcel", "there is no such parcel")
        return found

    def open_parcels(self, carrier: str) -> list[SimulatedShipment]:
        """Those that move."""
        return self._all("SELECT * FROM parcels WHERE carrier = ? AND state IN ('booked', 'on_the_way')", carrier)

    def last(self, limit: int) -> list[SimulatedShipment]:
        """The newest first."""
        return self._all("SELECT * FROM parcels WHERE state <> 'refused' ORDER BY created_ms DESC LIMIT ?", limit)

    def events(self, carrier: str, number: str, up_to: int = 2**31) -> list[Event]:
        """In the order in which they happened, the first `up_to` + 1 of them."""
        query = "SELECT * FROM events WHERE carrier = ? AND number = ? AND n <= ? ORDER BY n"
        return [Event(*row) for row in self._db.execute(query, (carrier, number, up_to))]

    def cancel(self, carrier: str, order_no: str) -> SimulatedShipment:
        """Nobody comes for it. Raises no_parcel, cancelled (it was before) or too_late."""
        parcel = self.booking(carrier, order_no)
        if parcel is None:
            raise ShipmentStoreRefusal("no_parcel", "there is no such order")
        if parcel.state == "cancelled":
            raise ShipmentStoreRefusal("cancelled", "the order was cancelled before")
        if parcel.state not in ("booked", "refused"):
            raise ShipmentStoreRefusal("too_late", "the parcel was picked up")
        cancelled = replace(parcel, state="cancelled")
        self._put("REPLACE INTO", cancelled)
        return cancelled

    def change(self, parcel: SimulatedShipment, event: Event | None = None, pushes: Sequence[NewPush] = ()) -> None:
        """The parcel is as given now; something may have happened to it, and may have to be pushed."""
        with self._transaction():
            self._put("REPLACE INTO", parcel)
            if event is not None:
                values = (event.carrier, event.number, event.n, event.step, event.at_ms, event.place)
                self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", values)
            for push in pushes:
                self._db.execute(
                    "INSERT OR IGNORE INTO pushes (push_id, carrier, number, n, due_ms, wrong, done) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        f"{parcel.carrier}/{parcel.number}/{push.n}/{push.which}",
                        *(parcel.carrier, parcel.number, push.n, push.due_ms, push.wrong, push.done),
                    ),
                )

    def books(self, carrier: str) -> dict[str, int]:
        """Counts over all time. A parcel is booked more than once where two numbers stand for one order number."""
        query = "SELECT state, count(*) FROM parcels WHERE carrier = ? GROUP BY state"
        states = dict(self._db.execute(query, (carrier,)).fetchall())
        twice = "SELECT 1 FROM parcels WHERE carrier = ? AND order_no <> '' GROUP BY order_no HAVING count(*) > 1"
        pushes = "SELECT count(*) FROM pushes WHERE carrier = ? AND done = 0"
        return {
            "parcels": sum(states.values()) - states.get("refused", 0),
            "booked_more_than_once": len(self._db.execute(twice, (carrier,)).fetchall()),
            **{state: states.get(state, 0) for state in ("refused", "cancelled", "delivered", "returned", "lost")},
            "open_pushes": self._db.execute(pushes, (carrier,)).fetchone()[0],
        }

    # Pushes.

    def due(self, now_ms: int, limit: int) -> list[DuePush]:
        query = (
            "SELECT push_id, carrier, number, n, wrong, attempts FROM pushes WHERE done = 0 AND due_ms <= ? "
            "ORDER BY due_ms, n LIMIT ?"
        )
        return [DuePush(*row) for row in self._db.execute(query, (now_ms, limit))]

    def noted(self, push_id: str, *, done: bool, again_ms: int) -> None:
        """A push was tried: it is done with, or due again."""
        self._db.execute(
            "UPDATE pushes SET attempts = attempts + 1, done = ?, due_ms = ? WHERE push_id = ?",
            (done, again_ms, push_id),
        )

    def next_due_ms(self, now_ms: int) -> int | None:
        """When the next push will be due that is not due yet."""
        query = "SELECT min(due_ms) FROM pushes WHERE done = 0 AND due_ms > ?"
        found: int | None = self._db.execute(query, (now_ms,)).fetchone()[0]
        return found

    def _put(self, how: str, parcel: SimulatedShipment) -> None:
        values = [getattr(parcel, name) for name in SimulatedShipment.__slots__]
        values[SimulatedShipment.__slots__.index("road")] = " ".join(parcel.road)
        self._db.execute(f"{how} parcels VALUES ({', '.join('?' * len(values))})", values)

    def _one(self, query: str, *values: object) -> SimulatedShipment | None:
        return next(iter(self._all(query, *values)), None)

    def _all(self, query: str, *values: object) -> list[SimulatedShipment]:
        rows = (dict(zip(SimulatedShipment.__slots__, row, strict=True)) for row in self._db.execute(query, values))
        return [SimulatedShipment(**row | {"road": tuple(row["road"].split())}) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
