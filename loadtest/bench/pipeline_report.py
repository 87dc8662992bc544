"""Table of the part `pipeline`."""

from __future__ import annotations

from loadtest.bench.pipeline_figures import PipelineFigures
from ops.commands.console import print_line, print_table
from ops.commands.safe_console import Table


def show_pipeline(pipeline: PipelineFigures) -> None:
    """Print the stages and the latencies."""
    table = Table("stage", "orders/s", "CPU ms per order, shop", "of which, and of others", title="Whole orders")
    for name, stage in (
        ("paid", pipeline.paid),
        ("shipped", pipeline.shipped),
        ("polled", pipeline.polled),
        ("delivered", pipeline.delivered),
    ):
        if stage:
            kinds = ", ".join(f"{kind} {used_ms:.2f}" for kind, used_ms in stage.cpu_ms.items())
            table.add_row(name, f"{stage.per_s:.0f}", f"{stage.shop_cpu_ms:.2f}", kinds)
    print_table(table)
    for title, times in (
        ("payment begun", pipeline.begun),
        ("payment captured", pipeline.captured),
        ("order accepted, alone", pipeline.accepted_alone),
        ("order accepted, beside all stages", pipeline.accepted_beside),
    ):
        if times:
            print_line(f"{title}: p50 {times.p50_ms:.1f} ms, p99 {times.p99_ms:.1f} ms of {times.answers}")
    print_line(f"pipeline: {pipeline.ratios}")
