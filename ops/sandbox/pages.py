"""HTML pages for a person in the place of customers and carriers, who pays trades and moves shipments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote, urlencode

from aiohttp import web

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.money import format_money
from ops.sandbox.carriers import SimulatedCarriers
from ops.sandbox.faults import BaseFaults, ProviderFaultRegistry
from ops.sandbox.payment_simulator import PaymentSimulator
from ops.sandbox.payment_store import PaymentStore, PaymentStoreRefusal, SimulatedTrade
from ops.sandbox.shipment_store import SimulatedShipment

_MAX_ROWS = 50
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{text-align:left;padding:.2em 1em .2em 0}form{display:inline}button{font:inherit;padding:.3em 1.5em}"
)
_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"}
_BACK_LINK = '<p><a href="/">All trades</a></p>'
_SHIPMENT_BUTTONS = (("", "Next step"), ("?to=lost", "Lose"), ("?to=returned", "Return"))


class Pages:
    """Pages of trades for browsers and curl, and the list of the newest shipments.

    `GET /` lists them. `GET /pay/{provider}/{out_no}` shows a trade; `POST` to its `/approve` pays, to `/refuse`
    closes, and to `/late` pays although the trade is closed or has expired.
    """

    def __init__(
        self,
        payment_store: PaymentStore,
        clock: Clock,
        simulator: PaymentSimulator,
        faults: ProviderFaultRegistry,
        providers: Sequence[str],
        carriers: SimulatedCarriers | None,
    ) -> None:
        self._payment_store = payment_store
        self._clock = clock
        self._simulator = simulator
        self._faults = faults
        self._providers = providers
        self._carriers = carriers

    def build_routes(self) -> Sequence[web.AbstractRouteDef]:
        return [
            web.get("/", self._list),
            web.get("/pay/{provider}/{out_no}", self._show_trade),
            web.post("/pay/{provider}/{out_no}/{decision:approve|refuse|late}", self._decide),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        """List waiting trades, the last paid trades and the newest shipments, and the faults of each system."""
        now_ms, names, store = self._clock.now_ms(), self._providers, self._payment_store
        waiting = [trade for name in names for trade in store.list_waiting(name, _MAX_ROWS)]
        waiting = [trade for trade in waiting if min(trade.expires_ms, trade.code_expires_ms) > now_ms]
        paid = [trade for name in names for trade in store.list_last_paid(name, _MAX_ROWS)]
        waiting.sort(key=lambda trade: -trade.created_ms)
        paid.sort(key=lambda trade: -(trade.paid_ms or 0))
        faults: list[tuple[str, BaseFaults]] = [(name, self._faults.get(name)) for name in names]
        shipments = ""
        if self._carriers is not None:
            faults += [(name, self._carriers.faults.get(name)) for name in self._carriers.protocols]
            table = _shipment_table(self._carriers.shipment_store.list_newest(_MAX_ROWS))
            shipments = f"<h2>Newest shipments</h2>{table}"
        items = "".join(
            f"<li>{escape(name)}: {escape(_describe_faults(system_faults))}" for name, system_faults in faults
        )
        body = (
            f"<h2>Waiting to be paid</h2>{_trade_table(waiting[:_MAX_ROWS])}"
            f"<h2>Paid last</h2>{_trade_table(paid[:_MAX_ROWS])}{shipments}<h2>Faults</h2><ul>{items}</ul>"
        )
        return _build_page("Sandbox", body)

    async def _show_trade(self, request: web.Request) -> web.Response:
        trade = self._payment_store.find_trade(request.match_info["provider"], request.match_info["out_no"])
        if trade is None:
            return _build_page("There is no such trade", _BACK_LINK, 404)
        facts = {
            "Amount": _format_amount(trade),
            "Subject": trade.subject,
            "Number": trade.out_no,
            "Provider's number": trade.trade_no,
            "State": self._displayed_state(trade),
            "Created": _format_time(trade.created_ms),
            "Expires": _format_time(trade.expires_ms),
        }
        if trade.paid_ms is not None:
            facts["Paid"] = _format_time(trade.paid_ms)
            facts["Refunded"] = _format_amount(trade, self._payment_store.sum_refunds(trade.provider, trade.out_no))
        rows = "".join(f"<tr><th>{name}<td>{escape(value)}" for name, value in facts.items())
        decisions = {"waiting": (("approve", "Pay"), ("refuse", "Refuse")), "captured": ()}
        query, back = _shop_link(request)
        buttons = "".join(
            f'<form method="post" action="{_trade_path(trade)}/{decision}{query}"><button>{label}</button></form> '
            for decision, label in decisions.get(self._displayed_state(trade), (("late", "Pay too late"),))
        )
        body = f"<table>{rows}</table><p>{buttons}</p>{back}{_BACK_LINK}"
        return _build_page(f"Pay with {trade.provider}", body)

    async def _decide(self, request: web.Request) -> web.Response:
        provider, out_no = request.match_info["provider"], request.match_info["out_no"]
        wants_json = "application/json" in request.headers.get("Accept", "")
        try:
            decision = request.match_info["decision"]
            if decision == "refuse":
                trade = self._payment_store.close_trade(provider, out_no)
            else:
                trade = self._simulator.pay(provider, out_no, too_late=decision == "late")
        except PaymentStoreRefusal as refusal:
            status = 404 if refusal.code == "no_trade" else 409
            if wants_json:
                return web.json_response({"code": refusal.code, "detail": str(refusal)}, status=status)
            return _build_page(f"The provider refuses: {refusal}", _BACK_LINK, status)
        if wants_json:
            return web.json_response({"provider": provider, "out_no": out_no, "state": trade.state})
        raise web.HTTPSeeOther(_trade_path(trade) + _shop_link(request)[0])

    def _displayed_state(self, trade: SimulatedTrade) -> str:
        is_expired = trade.state == "waiting" and min(trade.expires_ms, trade.code_expires_ms) <= self._clock.now_ms()
        return "expired" if is_expired else trade.state


def _trade_table(trades: Iterable[SimulatedTrade]) -> str:
    rows = "".join(
        f'<tr><td>{escape(trade.provider)}<td><a href="{_trade_path(trade)}">'
        f"{escape(trade.out_no)}</a><td>{escape(_format_amount(trade))}<td>{escape(trade.subject)}"
        f"<td>{_format_time(trade.paid_ms or trade.created_ms)}"
        for trade in trades
    )
    return f"<table><tr><th>Provider<th>Number<th>Amount<th>Subject<th>Time{rows}</table>" if rows else "<p>None.</p>"


def _shipment_table(shipments: Iterable[SimulatedShipment]) -> str:
    rows = []
    for shipment in shipments:
        path = f"/shipments/{quote(shipment.tracking_no, safe='')}"
        buttons = "".join(
            f'<form method="post" action="{path}/move{query}"><button>{label}</button></form> '
            for query, label in (_SHIPMENT_BUTTONS if shipment.is_open else ())
        )
        done = ", ".join(shipment.journey[: shipment.steps_done])
        rows.append(
            f'<tr><td>{escape(shipment.carrier)}<td><a href="{path}">{escape(shipment.tracking_no)}</a>'
            f"<td>{escape(shipment.destination)}<td>{escape(shipment.state)}<td>{escape(done)}<td>{buttons}"
        )
    head = "<tr><th>Carrier<th>Tracking number<th>To<th>State<th>Steps<th>"
    return f"<table>{head}{''.join(rows)}</table>" if rows else "<p>None.</p>"


def _shop_link(request: web.Request) -> tuple[str, str]:
    """Return the query that keeps the shop's page, and a link to that page; empty if the shop named none."""
    url = request.query.get("return_url") or request.query.get("redirect_url", "")
    if not url.startswith(("http://", "https://")):
        return "", ""
    return f"?{escape(urlencode({'return_url': url}))}", f'<p><a href="{escape(url)}">Back to the shop</a></p>'


def _trade_path(trade: SimulatedTrade) -> str:
    return f"/pay/{quote(trade.provider, safe='')}/{quote(trade.out_no, safe='')}"


def _format_amount(trade: SimulatedTrade, amount: int | None = None) -> str:
    return format_money(trade.amount if amount is None else amount, trade.currency)


def _format_time(ms: int) -> str:
    return from_ms(ms).isoformat(sep=" ", timespec="seconds")


def _describe_faults(faults: BaseFaults) -> str:
    """Return the faults that differ from their defaults."""
    defaults = type(faults)()
    changed = [
        f"{name} = {getattr(faults, name)}"
        for name in faults.__struct_fields__
        if getattr(faults, name) != getattr(defaults, name)
    ]
    return ", ".join(changed) or "none"


def _build_page(title: str, body: str, status: int = 200) -> web.Response:
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    note = "<p>This is a sandbox: no real money, no real shipments.</p>"
    return web.Response(
        text=f"{head}<h1>{escape(title)}</h1>{note}{body}", content_type="text/html", status=status, headers=_HEADERS
    )
