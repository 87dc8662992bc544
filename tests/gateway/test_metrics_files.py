"""Metrics files: no full disk, broken file or foreign file stops a process or its scrape."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from commerce.kernel.metrics_files import MetricsFilesCollector
from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import bearer
from tests.support.processes import run_processes
from tests.support.sales import eventually, make_sale, order_body

DISK_BYTES = 1_048_576


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Leave no byte on a disk until the block ends."""
    file = disk / "filler"
    with suppress(OSError), file.open("wb", buffering=0) as filler:
        while filler.write(bytes(4_096)):
            pass
    assert os.statvfs(disk).f_bfree == 0
    yield
    file.unlink()


@pytest.mark.parametrize("full_from", ["before the start", "after the first scrape"])
async def test_gateway_on_full_metrics_disk_takes_orders_and_answers_scrapes(
    make_settings: Callable[..., Settings],
    shop: CliServices,
    sale_id: str,
    tmp_path: Path,
    small_disk: Path,
    full_from: str,
) -> None:
    """A page of a sparse mapped file that finds no block ends its process with SIGBUS."""
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    settings = make_settings(metrics_dir=small_disk / "metrics")
    async with run_processes(settings, tmp_path) as started, aiohttp.ClientSession() as client:

        async def scrape() -> str:
            async with client.get(f"http://127.0.0.1:{started.admin_port}/metrics") as answer:
                assert answer.status == 200
                return await answer.text()

        async def use() -> None:
            """Place orders and create series, more than fit on the pages of files that are hardly used."""
            for number in range(20):
                headers = {**bearer(settings), "Idempotency-Key": f"key-{number}"}
                body = order_body(sale_id, ("a", 1))
                async with client.post(f"{started.base}/v1/orders", json=body, headers=headers) as answer:
                    assert answer.status == 202
            for path in ("products", "sales", "categories", "orders", f"orders/{sale_id}", f"products/{sale_id}"):
                async with client.get(f"{started.base}/v1/{path}"):
                    pass
            await scrape()

        async def is_counted() -> bool:
            return 'floodgate_orders_total{outcome="accepted"} 20.0' in await scrape()

        if full_from == "before the start":
            with filled(small_disk):
                gateway = await started.gateway()
                await use()
        else:
            gateway = await started.gateway()
            await scrape()
            with filled(small_disk):
                await use()
                await eventually(is_counted)
        await eventually(is_counted)
        assert gateway.process.returncode is None


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that has not imported prometheus_client."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


async def test_metrics_files_have_all_their_blocks(tmp_path: Path) -> None:
    """A file that grows is allocated too."""
    code = (
        "import os, pathlib, sys\n"
        "from commerce.kernel import metrics\n"
        "home = pathlib.Path(sys.argv[1])\n"
        "metrics.enable_multiprocess(home)\n"
        "from gateway.metrics import REQUESTS\n"
        "for number in range(2_000): REQUESTS.labels(f'/route/{number}', 'GET', '200').inc(number)\n"
        "text = metrics.render().decode()\n"
        'assert \'route="/route/1999",status="200"} 1999.0\' in text, text[-500:]\n'
        "files = [file.stat() for file in home.glob('*.db')]\n"
        "assert max(file.st_size for file in files) > 100_000\n"
        "assert all(file.st_blocks * 512 >= file.st_size for file in files), files\n"
    )
    done = await asyncio.to_thread(run_python, code, str(tmp_path))
    assert done.returncode == 0, done.stderr


def metrics_file(*entries: tuple[bytes, float], used: int | None = None) -> bytes:
    """Build a file as prometheus_client writes it, with keys of any content."""
    content = b""
    for key, value in entries:
        padded = key + b" " * (8 - (len(key) + 4) % 8)
        content += struct.pack("i", len(key)) + padded + struct.pack("dd", value, 0.0)
    return struct.pack("ii", len(content) + 8 if used is None else used, 0) + content


def metric_key(name: object = "x_total", labels: object = None) -> bytes:
    return json.dumps([name, name, {} if labels is None else labels, "help"]).encode()


SOUND = metrics_file((metric_key(), 1.0))
BAD_FILES: dict[str, tuple[str, bytes | None]] = {
    "three bytes": ("counter_1.db", b"abc"),
    "text": ("counter_1.db", b"not at all a file of metrics, but long enough to have a header"),
    "cut": ("counter_1.db", SOUND[:-4]),
    "longer than it is": ("counter_1.db", metrics_file((metric_key(), 1.0), used=1 << 30)),
    "negative length of file": ("counter_1.db", metrics_file((metric_key(), 1.0), used=-5)),
    "negative length of key": ("counter_1.db", struct.pack("iii", 64, 0, -100) + bytes(100)),
    "zero length of key": ("counter_1.db", struct.pack("iii", 64, 0, 0) + bytes(100)),
    "key not UTF-8": ("counter_1.db", metrics_file((b"\xff\xfe" * 8, 1.0))),
    "key not JSON": ("counter_1.db", metrics_file((b"[1, 2", 1.0))),
    "key not a list": ("counter_1.db", metrics_file((b"{}", 1.0))),
    "key of numbers": ("counter_1.db", metrics_file((b"[1, 2, {}, 3]", 1.0))),
    "key nested deeply": ("counter_1.db", metrics_file((b"[" * 100_000, 1.0))),
    "text that is half a pair": ("counter_1.db", metrics_file((metric_key(labels={"a": "\ud800"}), 1.0))),
    "label without a name": ("counter_1.db", metrics_file((metric_key(labels={"": "a"}), 1.0))),
    "labels not an object": ("counter_1.db", metrics_file((metric_key(labels=[1]), 1.0))),
    "labels not texts": ("counter_1.db", metrics_file((metric_key(labels={"a": [1]}), 1.0))),
    "bound not a number": ("histogram_1.db", metrics_file((metric_key("x_bucket", {"le": "wide"}), 1.0))),
    "foreign name": ("notes.db", SOUND),
    "gauge without mode": ("gauge_1.db", SOUND),
    "unknown kind": ("thermometer_1.db", SOUND),
    "live gauge without pid": ("gauge_livesum_abc.db", SOUND),
    "pid beyond all": ("gauge_livesum_99999999999999999999999.db", b"x"),
    "directory": ("counter_1.db", None),
    "directory like a dead process": ("gauge_livesum_4194305.db", None),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_scrape_with_broken_or_foreign_file_skips_counts_and_logs_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    file_name, content = BAD_FILES[name]
    (tmp_path / "counter_4194304.db").write_bytes(metrics_file((metric_key("sound_total"), 7.0)))
    (tmp_path / "gauge_livesum_1.db").write_bytes(b"")  # a process has just created it
    if content is None:
        (tmp_path / file_name).mkdir()
    else:
        (tmp_path / file_name).write_bytes(content)
    for _ in range(3):
        registry = CollectorRegistry()
        registry.register(MetricsFilesCollector(tmp_path))
        text = generate_latest(registry).decode()
        assert "sound_total 7.0" in text
        assert "floodgate_skipped_metrics_files 1.0" in text
    assert len(caplog.records) == 1


def test_render_with_foreign_entries_in_directory_answers(tmp_path: Path) -> None:
    """A live gauge's file is deleted once its process has ended; what looks like one may be anything."""
    code = (
        "import pathlib, sys\n"
        "from commerce.kernel import metrics\n"
        "home = pathlib.Path(sys.argv[1])\n"
        "metrics.enable_multiprocess(home)\n"
        "(home / 'gauge_livesum_4194305.db').mkdir(parents=True)\n"
        "(home / ('gauge_livesum_' + 30 * '9' + '.db')).write_bytes(b'x')\n"
        "from gateway.metrics import ORDERS\n"
        "ORDERS.labels('accepted').inc(3)\n"
        "text = metrics.render().decode()\n"
        "assert 'accepted\"} 3.0' in text and 'skipped_metrics_files 2.0' in text, text[-500:]\n"
    )
    done = run_python(code, str(tmp_path / "metrics"))
    assert done.returncode == 0, done.stderr
