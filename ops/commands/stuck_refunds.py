"""`floodgate refunds`: stuck refunds, and those that were made by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from getpass import getpass
from typing import Annotated
from uuid import UUID

import typer

from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money
from commerce.kernel.paging import Page
from commerce.payments.model import ConsentInput, OtherWayInput, StuckRefundView, TransferInput
from commerce.payments.other_ways import OtherWays
from commerce.payments.provider_port import BankCard
from commerce.payments.providers import open_providers
from commerce.refunds.hand_refunds import HandRefunds
from commerce.refunds.model import HandRefund, HandRefundInput
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    parse_argument,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import CliServices, open_cli_services

app = typer.Typer(help="Show and end refunds that cannot go back to their payments.", no_args_is_help=True)
RefundId = Annotated[UUID, typer.Argument(metavar="REFUND", help="the refund's id")]


@app.command("list")
def list_refunds(
    needs_other_way: Annotated[bool, typer.Option("--needs-other-way", help="those that need another way")] = True,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="at most so many, the oldest first")] = 100,
    json: JsonOption = False,
) -> None:
    """List refunds that need another way, the oldest first: store credit, a transfer, or a bank card."""

    async def work() -> Page[StuckRefundView]:
        async with _open() as ways:
            return await ways.list_needing_other_way(None, limit)

    if not needs_other_way:
        raise typer.BadParameter("others are shown with their order: floodgate payment show ORDER")
    page = run(work())
    if json:
        print_json(page)
        return
    table = Table("refund", "order", "amount", "method", "needs another way", "since (UTC)", "transfer")
    table.columns[0].no_wrap = True
    for refund in page.items:
        table.add_row(
            str(refund.refund_id),
            str(refund.order_id),
            format_money(refund.amount.amount, refund.amount.currency),
            refund.method,
            refund.other_way_reason,
            format_time(refund.since),
            refund.transfer_reference or "",
        )
    print_table(table, "no refund needs another way")


@app.command("list-by-hand")
def list_by_hand(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="at most so many, the oldest first")] = 100,
    json: JsonOption = False,
) -> None:
    """List refunds on providers' statements that the shop has not requested and nobody has posted."""

    async def work() -> Page[HandRefund]:
        async with open_cli_services() as shop:
            return await _hand_refunds(shop).list_open(None, limit)

    page = run(work())
    if json:
        print_json(page)
        return
    table = Table("refund", "order", "amount", "method", "number", "day", "recorded by", "proof")
    table.columns[0].no_wrap = True
    for refund in page.items:
        table.add_row(
            str(refund.refund_id),
            str(refund.order_id),
            format_money(refund.amount.amount, refund.amount.currency),
            refund.method,
            refund.number,
            refund.booked_on.isoformat(),
            refund.recorded_by or "",
            refund.proof or "",
        )
    print_table(table, "no statement has a refund that was made by hand and is not posted")


@app.command("record-by-hand")
def record_by_hand(
    refund_id: RefundId, proof: Annotated[str, typer.Option(help="who refunded it at the provider, and why")]
) -> None:
    """Record what is known of a refund that was made by hand. Another person confirms it."""
    hand_refund = parse_argument({"proof": proof}, HandRefundInput)

    async def work() -> None:
        async with open_cli_services() as shop:
            await _hand_refunds(shop).record(refund_id, hand_refund.proof, get_actor())

    run_change(work())
    print_line(f"it is recorded; another person confirms it: floodgate refunds confirm-by-hand {refund_id}")


@app.command("confirm-by-hand")
def confirm_by_hand(refund_id: RefundId) -> None:
    """Confirm a refund by hand that another person has recorded, which posts it."""

    async def work() -> str:
        async with open_cli_services() as shop:
            return await _hand_refunds(shop).confirm(refund_id, get_actor())

    print_line(f"the refund {refund_id} is posted as a {run_change(work())}")


@app.command()
def credit(
    refund_id: RefundId, proof: Annotated[str, typer.Option(help="when and how the customer consented")]
) -> None:
    """Pay a refund as store credit, with the customer's consent."""
    consent = parse_argument({"proof": proof}, ConsentInput)

    async def work() -> None:
        async with _open() as ways:
            await ways.record_consent(refund_id, consent.proof, get_actor())

    run_change(work())
    print_line(f"the refund {refund_id} is paid as store credit")


@app.command()
def transfer(refund_id: RefundId, reference: Annotated[str, typer.Option(help="the bank's number of it")]) -> None:
    """Record a bank transfer to the customer. Another person confirms it."""
    recorded = parse_argument({"reference": reference}, TransferInput)

    async def work() -> None:
        async with _open() as ways:
            await ways.record_transfer(refund_id, recorded.reference, get_actor())

    run_change(work())
    print_line(f"the transfer is recorded; another person confirms it: floodgate refunds confirm {refund_id}")


@app.command()
def confirm(refund_id: RefundId) -> None:
    """Confirm a bank transfer that another person has recorded: the refund is done."""

    async def work() -> None:
        async with _open() as ways:
            await ways.confirm_transfer(refund_id, get_actor())

    run_change(work())
    print_line(f"the refund {refund_id} is done by transfer")


@app.command()
def withdraw(refund_id: RefundId) -> None:
    """Withdraw a bank transfer that was recorded and not made."""

    async def work() -> None:
        async with _open() as ways:
            await ways.withdraw_transfer(refund_id)

    run_change(work())
    print_line(f"no transfer is recorded for the refund {refund_id}")


@app.command("give-up")
def give_up(
    refund_id: RefundId, reason: Annotated[str, typer.Option(help="what was seen at the provider; for staff")]
) -> None:
    """Give up a parked refund at its provider: it needs another way.

    First see at the provider that no money has moved.
    """
    given_up = parse_argument({"reason": reason}, OtherWayInput)

    async def work() -> None:
        async with _open() as ways:
            await ways.need_other_way(refund_id, given_up.reason, get_actor())

    run_change(work())
    print_line(f"the refund {refund_id} needs another way")


@app.command()
def redirect(
    refund_id: RefundId,
    bank: Annotated[
        str | None, typer.Option(help="the provider's word for the customer's bank, such as ICBC_DEBIT")
    ] = None,
    to_merchant: Annotated[bool, typer.Option("--to-merchant", help="to the shop's own account instead")] = False,
) -> None:
    """Send an abnormal refund to the customer's debit card, or back to the shop.

    The card's number and name are prompted for: no list of processes and no history has them.
    """
    if (bank is None) != to_merchant:
        raise typer.BadParameter("give --bank, or --to-merchant")
    card = None
    if bank is not None:
        account, name = getpass("number of the card: "), getpass("name on the card: ")
        card = parse_argument({"bank": bank, "account": account, "name": name}, BankCard)

    async def work() -> None:
        async with open_cli_services() as shop:
            settings = shop.settings
            timeout_s = settings.jobs.call_timeout_s
            async with open_providers(settings.payments, shop.clock, timeout_s=timeout_s, connections=1) as providers:
                if not providers:
                    raise Invalid("the settings name no account at a provider; configure payments.wechatpay")
                await OtherWays(shop.db, shop.clock, shop.ids, providers).redirect(refund_id, card)

    run_change(work())
    print_line("the provider has got it; `floodgate payment show ORDER` shows what becomes of the refund")


@asynccontextmanager
async def _open() -> AsyncIterator[OtherWays]:
    """Open what needs no provider."""
    async with open_cli_services() as shop:
        yield _without_providers(shop)


def _hand_refunds(shop: CliServices) -> HandRefunds:
    return HandRefunds(shop.db, shop.clock, shop.ids)


def _without_providers(shop: CliServices) -> OtherWays:
    return OtherWays(shop.db, shop.clock, shop.ids, {})
