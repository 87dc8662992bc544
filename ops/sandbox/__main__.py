"""Command line of `python -m ops.sandbox`."""

from __future__ import annotations

import argparse
import sqlite3
from pathlib import Path

import uvloop

from commerce.kernel import logs
from commerce.kernel.errors import NotReady
from commerce.kernel.standard_streams import open_standard_streams
from ops.sandbox.server import SandboxOptions, serve
from ops.sandbox.webhook_sender import SenderSettings


def main() -> None:
    """Run `python -m ops.sandbox`."""
    parser = _build_parser()
    arguments = parser.parse_args()
    logs.configure_logging("info", None, 0, "sandbox")
    sender_settings = SenderSettings(
        hosts=SenderSettings().hosts | set(arguments.webhook_host),
        timeout_s=arguments.timeout_s,
        concurrency=arguments.concurrency,
        max_retry_wait_s=arguments.max_retry_wait_s,
    )
    options = SandboxOptions(
        data=arguments.data,
        keys=arguments.keys,
        host=arguments.host,
        port=arguments.port,
        fault_scenario=arguments.fault_scenario,
        seed=arguments.seed,
        shop_url=arguments.shop_url,
        time_factor=max(1, arguments.time_factor),
        public_url=arguments.public_url,
        sender_settings=sender_settings,
    )
    try:
        uvloop.run(serve(options))
    except (NotReady, OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    except sqlite3.DatabaseError as error:
        parser.exit(
            1, f"cannot use {options.data}: {error}; delete it, which holds simulated payments and shipments only\n"
        )


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.sandbox",
        description="Simulated payment providers and carriers for development and drills. No money and no shipment "
        "moves. Anybody who reaches the port may pay, refuse and inject faults.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = SenderSettings()
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8_090, help="port to listen on; 0: a free one")
    parser.add_argument(
        "--data", type=Path, default=Path(".floodgate/sandbox"), help="directory of payments, shipments and faults"
    )
    parser.add_argument(
        "--keys", type=Path, default=Path(".floodgate/sandbox/keys"), help="directory of keys, created if missing"
    )
    parser.add_argument("--fault-scenario", type=Path, help="TOML file with [[step]] after_s, system, faults")
    parser.add_argument(
        "--seed", type=int, default=0, help="decides which trades, shipments and requests the fault shares hit"
    )
    parser.add_argument(
        "--shop-url", default="", help="URL of the shop that receives SF Express's webhooks; empty: SF sends none"
    )
    parser.add_argument(
        "--time-factor", type=int, default=3_600, help="number of times that shipments move faster than in reality"
    )
    parser.add_argument("--public-url", help="URL of the pages for customers, if it is not the address listened on")
    parser.add_argument(
        "--webhook-host",
        action="append",
        default=[],
        help="host that may receive webhooks besides this machine; may be repeated",
    )
    parser.add_argument(
        "--timeout-s", type=float, default=defaults.timeout_s, help="timeout for the response to a webhook"
    )
    parser.add_argument(
        "--concurrency", type=int, default=defaults.concurrency, help="maximum number of webhooks in flight"
    )
    parser.add_argument(
        "--max-retry-wait-s",
        type=float,
        default=defaults.max_retry_wait_s,
        help="upper limit of the growing waits between attempts of a webhook",
    )
    return parser


if __name__ == "__main__":
    open_standard_streams()
    main()
