"""Tables of the part `rush`."""

from __future__ import annotations

from statistics import median

from loadtest.bench.rush_figures import FULL, CrowdFigures, RushFigures, find_rate
from ops.commands.console import print_line, print_table
from ops.commands.safe_console import Table


def show_rush(rush: RushFigures) -> None:
    """Print the tables and the ratios of the part."""
    rows = [
        (f"{name}, {size:,}", measurements)
        for name, by_size in (
            ("one gateway", rush.gateway),
            ("shop", rush.shop),
            ("one gateway, Redis 20 ms late", rush.late_gateway),
        )
        for size, measurements in by_size.items()
    ]
    rows += [(f"{name}, {FULL:,}", measurements) for name, measurements in rush.peers.items()]
    rows += [(f"{name}, {FULL:,}, Redis 20 ms late", measurements) for name, measurements in rush.late_peers.items()]
    if rows:
        print_table(_create_table([(name, measurements) for name, measurements in rows if measurements]))
    if rush.audit_differences is not None:
        print_line(f"audit after the crowds: difference {rush.audit_differences}, findings {rush.audit_findings}")
    if rush.refusal:
        refusal = rush.refusal
        print_line(
            f"refusals: {refusal.per_s:,.0f} per second, gateway CPU {refusal.cpu_us:.1f} µs each "
            f"(user {refusal.user_us:.1f} and system {refusal.system_us:.1f}, less {refusal.idle_us:.1f} when idle), "
            f"{refusal.cpu_us * refusal.per_s / 1e6:.1%} of a core for all"
        )
    _show_sold_out(rush)
    _show_reads(rush)
    for name, priority in rush.priority.items():
        print_line(
            f"{name.replace('_', ' ')}: p99 {priority.quiet_p99_ms:.1f} ms in a quiet hour, {priority.p99_ms:.1f} ms "
            f"at full overload; {priority.requests} answers, {priority.refused} refused"
        )
    for name, abuse in rush.abuse.items():
        loss = median(figures.loss for figures in abuse)
        alone_per_s = median(figures.alone_per_s for figures in abuse)
        print_line(
            f"beside {name.replace('_', ' ')}: ordinary customers lose {loss:.1%} of {alone_per_s:,.0f} "
            "accepted orders/s"
        )
    _show_room(rush)
    print_line(f"rush: {rush.ratios}")


def _create_table(rows: list[tuple[str, list[CrowdFigures]]]) -> Table:
    table = Table(
        *(
            "impatient connections",
            "accepted/s",
            "refused",
            "p99 ms",
            "patient p99 ms",
            "until accepted",
            "calm after ms",
        ),
        title="More customers than can be served",
    )
    for name, measurements in rows:
        patient = [figures.patient for figures in measurements if figures.patient]
        calm = [figures.calm_after_ms for figures in measurements if figures.calm_after_ms is not None]
        table.add_row(
            name,
            f"{find_rate(measurements):,.0f}",
            f"{median(figures.refused_share for figures in measurements):.0%}",
            f"{median(figures.p99_ms for figures in measurements):.0f}",
            f"{median(figures.p99_ms for figures in patient):.0f}" if patient else "",
            f"{median(figures.all_attempts_p99_ms for figures in patient):.0f}" if patient else "",
            f"{median(calm):.0f}" if calm else "",
        )
    return table


def _show_room(rush: RushFigures) -> None:
    if rush.room:
        room = rush.room
        print_line(
            f"waiting room of {room.customers:,}: {room.joined_over_http:,} joined over HTTP, {room.joins_per_s:,.0f} "
            f"per second, p99 {room.join_p99_ms:.0f} ms; {room.bytes_per_person:.0f} bytes of Redis a person; drawn in "
            f"{room.draw_s:.1f} s; {room.reads_per_s:,.0f} reads of the page per second from one process, p99 "
            f"{room.reads_p99_ms:.1f} ms"
        )
        print_line(
            f"the room's sale: {room.sold:,} units sold, known to everybody after {room.known_after_s:.1f} s, ended "
            f"after {room.ended_after_s:.1f} s; orders accepted early {room.accepted_early}, twice "
            f"{room.accepted_twice}, out of order {room.accepted_out_of_order}; audit difference "
            f"{room.audit_differences}"
        )


def _show_sold_out(rush: RushFigures) -> None:
    if rush.sold_out:
        sold_out = rush.sold_out
        print_line(
            f"sold out: {sold_out.refusals.per_s:,.0f} refusals per second, gateway CPU "
            f"{sold_out.refusals.cpu_us:.1f} µs each, {sold_out.accepted_cpu_us:.1f} an accepted order; Redis was "
            f"asked for {sold_out.reserved_share:.2%} of them, and got {sold_out.commands_share:.2%} as many commands; "
            f"added units were bought after {median(sold_out.bought_after_ms):.0f} ms"
        )


def _show_reads(rush: RushFigures) -> None:
    if rush.reads:
        reads = rush.reads
        print_line(
            f"reads from two gateways: sale, offers and product {reads.catalog_per_s:,.0f} per second, p99 "
            f"{reads.catalog_p99_ms:.1f} ms, {reads.transactions_per_s:.0f} transactions of Postgres per second "
            f"({reads.quiet_transactions_per_s:.0f} without reads); own orders {reads.own_order_per_s:,.0f} per "
            f"second, p99 {reads.own_order_p99_ms:.1f} ms"
        )
