"""The pages where a person plays the customer and the courier: what waits to be paid, with two buttons for each trade,
and the last parcels, with three."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

from aiohttp import web

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.money import format_money
from ops.sandbox.carriers import SimulatedCarriers
from ops.sandbox.faults import BaseFaults, ProviderFaultRegistry
from ops.sandbox.payment_simulator import PaymentSimulator
from ops.sandbox.payment_store import PaymentStore, PaymentStoreRefusal, SimulatedTrade
from ops.sandbox.shipment_store import SimulatedShipment

_NEWEST = 50
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{text-align:left;padding:.2em 1em .2em 0}form{display:inline}button{font:inherit;padding:.3em 1.5em}"
)
_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"}


class Pages:
    """`GET /`, `GET /pay/{provider}/{out_no}` and `POST` to its `/approve`, `/refuse` and `/late`, for browsers and for
    curl. Late is money that was on its way when the trade was closed."""

    def __init__(
        self,
        bank: PaymentStore,
        clock: Clock,
        plans: PaymentSimulator,
        board: ProviderFaultRegistry,
        providers: Sequence[str],
        carriers: SimulatedCarriers | None,
    ) -> None:
        self._bank = bank
        self._clock = clock
        self._plans = plans
        self._board = board
        self._providers = providers
        self._carriers = carriers

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [
            web.get("/", self._list),
            web.get("/pay/{provider}/{out_no}", self._ask),
            web.post("/pay/{provider}/{out_no}/{answer:approve|refuse|late}", self._answer),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        """All providers together: what waits, what was paid last, and which provider misbehaves."""
        now_ms, names = self._clock.now_ms(), self._providers
        waiting = [trade for name in names for trade in self._bank.waiting(name, _NEWEST) if trade.expires_ms > now_ms]
        paid = [trade for name in names for trade in self._bank.last_paid(name, _NEWEST)]
        waiting.sort(key=lambda trade: -trade.created_ms)
        paid.sort(key=lambda trade: -(trade.paid_ms or 0))
        told: list[tuple[str, BaseFaults]] = [(name, self._board.of(name)) for name in names]
        parcels = ""
        if self._carriers is not None:
            told += [(name, self._carriers.board.of(name)) for name in self._carriers.protocols]
            parcels = f"<h2>Last parcels</h2>{_parcels(self._carriers.depot.last(_NEWEST))}"
        switches = "".join(f"<li>{escape(name)}: {escape(_told(one))}" for name, one in told)
        body = (
            f"<h2>Waiting to be paid</h2>{_table(waiting[:_NEWEST])}<h2>Paid last</h2>{_table(paid[:_NEWEST])}"
            f"{parcels}<h2>Switches</h2><ul>{switches}</ul>"
        )
        return _page("Sandbox", body)

    async def _ask(self, request: web.Request) -> web.Response:
        trade = self._bank.trade(request.match_info["provider"], request.match_info["out_no"])
        if trade is None:
            return _page("There is no such trade", _BACK, 404)
        facts = {
            "Amount": _amount(trade),
            "Subject": trade.subject,
            "Number": trade.out_no,
            "Provider's number": trade.trade_no,
            "State": self._state(trade),
            "Entered": _time(trade.created_ms),
            "Expires": _time(trade.expires_ms),
        }
        if trade.paid_ms is not None:
            facts["Paid"] = _time(trade.paid_ms)
            facts["Refunded"] = _amount(trade, self._bank.refunded(trade.provider, trade.out_no))
        rows = "".join(f"<tr><th>{name}<td>{escape(value)}" for name, value in facts.items())
        answers = {"waiting": (("approve", "Pay"), ("refuse", "Refuse")), "captured": ()}
        buttons = "".join(
            f'<form method="post" action="{_path(trade)}/{answer}"><button>{label}</button></form> '
            for answer, label in answers.get(self._state(trade), (("late", "Pay too late"),))
        )
        body = f"<table>{rows}</table><p>{buttons}</p>{_BACK}"
        return _page(f"Pay with {trade.provider}", body)

    async def _answer(self, request: web.Request) -> web.Response:
        provider, out_no = request.match_info["provider"], request.match_info["out_no"]
        wants_json = "application/json" in request.headers.get("Accept", "")
        try:
            answer = request.match_info["answer"]
            if answer == "refuse":
                trade = self._bank.close_trade(provider, out_no)
            else:
                trade = self._plans.pay(provider, out_no, too_late=answer == "late")
        except PaymentStoreRefusal as refusal:
            status = 404 if refusal.code == "no_trade" else 409
            if wants_json:
                return web.json_response({"code": refusal.code, "detail": str(refusal)}, status=status)
            return _page(f"This cannot be: {refusal}", _BACK, status)
        if wants_json:
            return web.json_response({"provider": provider, "out_no": out_no, "state": trade.state})
        raise web.HTTPSeeOther(_path(trade))

    def _state(self, trade: SimulatedTrade) -> str:
        expired = trade.state == "waiting" and trade.expires_ms <= self._clock.now_ms()
        return "expired" if expired else trade.state


_BACK = '<p><a href="/">All trades</a></p>'
_MOVES = (("", "Move on"), ("?to=lost", "Lose"), ("?to=returned", "Send back"))


def _table(trades: Iterable[SimulatedTrade]) -> str:
    rows = "".join(
        f'<tr><td>{escape(trade.provider)}<td><a href="{_path(trade)}">'
        f"{escape(trade.out_no)}</a><td>{escape(_amount(trade))}<td>{escape(trade.subject)}"
        f"<td>{_time(trade.paid_ms or trade.created_ms)}"
        for trade in trades
    )
    return f"<table><tr><th>Provider<th>Number<th>Amount<th>Subject<th>Time{rows}</table>" if rows else "<p>None.</p>"


def _parcels(parcels: Iterable[SimulatedShipment]) -> str:
    rows = []
    for parcel in parcels:
        path = f"/parcels/{quote(parcel.number, safe='')}"
        buttons = "".join(
            f'<form method="post" action="{path}/move{query}"><button>{label}</button></form> '
            for query, label in (_MOVES if parcel.open else ())
        )
        done = ", ".join(parcel.road[: parcel.step])
        rows.append(
            f'<tr><td>{escape(parcel.carrier)}<td><a href="{path}">{escape(parcel.number)}</a>'
            f"<td>{escape(parcel.destination)}<td>{escape(parcel.state)}<td>{escape(done)}<td>{buttons}"
        )
    head = "<tr><th>Carrier<th>Number<th>To<th>State<th>Steps<th>"
    return f"<table>{head}{''.join(rows)}</table>" if rows else "<p>None.</p>"


def _path(trade: SimulatedTrade) -> str:
    return f"/pay/{quote(trade.provider, safe='')}/{quote(trade.out_no, safe='')}"


def _amount(trade: SimulatedTrade, amount: int | None = None) -> str:
    return format_money(trade.amount if amount is None else amount, trade.currency)


def _time(ms: int) -> str:
    return from_ms(ms).isoformat(sep=" ", timespec="seconds")


def _told(switches: BaseFaults) -> str:
    """Only what is not as usual."""
    usual = type(switches)()
    changed = [
        f"{name} = {getattr(switches, name)}"
        for name in switches.__struct_fields__
        if getattr(switches, name) != getattr(usual, name)
    ]
    return ", ".join(changed) or "behaves well"


def _page(title: str, body: str, status: int = 200) -> web.Response:
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    note = "<p>This is a sandbox: no real bank, no real money, no real parcels.</p>"
    return web.Response(
        text=f"{head}<h1>{escape(title)}</h1>{note}{body}", content_type="text/html", status=status, headers=_HEADERS
    )
