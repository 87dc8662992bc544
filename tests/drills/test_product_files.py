"""A file of many products is checked and applied in bounded memory.

`FLOODGATE_DRILL_PRODUCTS` sets another number.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from time import monotonic

import pytest

from config.settings import Settings
from ops.services import CliServices
from tests.support.processes import Processes
from tests.support.product_shop import add_categories

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3_600)]
PRODUCTS = int(os.environ.get("FLOODGATE_DRILL_PRODUCTS", "2000"))
MAX_GROWTH_KIB = 100_000
"""of the memory of the command, against that for a hundredth of the products"""


def write_products(file: Path, count: int) -> None:
    """Write products with two variants each, texts in two languages and attributes."""
    with file.open("w", encoding="utf-8") as target:
        target.write(
            "product_id,status,category_id,brand,options,name:en,description:en,name:zh-CN,attribute:fabric,"
            "attribute:weight,sku,variant_name,price,currency,option:size\n"
        )
        for n in range(count):
            target.write(
                f'shirt-{n},on_sale,shirts,Brand {n % 500},size,Shirt {n},"Soft, warm\nand number {n}",衬衫 {n},linen,'
                f"{n % 900 + 100},shirt-{n}-s,Shirt {n} S,{n % 300 + 1}.50,CNY,s\n"
                f"shirt-{n},,,,,,,,,,shirt-{n}-l,Shirt {n} L,{n % 300 + 2},CNY,l\n"
            )


async def run_import(environment: dict[str, str], file: Path, *options: str) -> tuple[str, float, int]:
    """Run the command. Returns its output, its seconds and its largest memory in KiB."""
    started = monotonic()
    code = (
        "import resource, sys; from ops.cli import main\n"
        "try: main()\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "catalog", "import", str(file), *options),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2_000:]
    return output.decode(), monotonic() - started, int(errors.split()[-1])


async def test_large_file_is_imported_in_bounded_memory(shop: CliServices, settings: Settings, tmp_path: Path) -> None:
    await add_categories(shop)
    environment = Processes(settings, tmp_path).environment()
    small, large = tmp_path / "small.csv", tmp_path / "large.csv"
    write_products(small, PRODUCTS // 100)
    write_products(large, PRODUCTS)
    _, _, base_kib = await run_import(environment, small)
    figures = [f"{PRODUCTS} products, {large.stat().st_size >> 20} MiB; a hundredth of them needs {base_kib >> 10} MiB"]
    for step, options, expected in (
        ("check", (), f"{2 * PRODUCTS} created, 0 changed, 0 unchanged, 0 refused"),
        (
            "check and apply",
            ("--apply", "--anyway", "it is a drill"),
            f"{PRODUCTS} applied, 0 changed meanwhile, 0 failed",
        ),
        ("again", ("--apply",), f"0 created, 0 changed, {2 * PRODUCTS} unchanged, 0 refused"),
    ):
        output, seconds, kib = await run_import(environment, large, *options)
        figures.append(f"{step}: {seconds:.0f} s, {kib >> 10} MiB")
        assert expected in output
        assert kib < base_kib + MAX_GROWTH_KIB, figures
    print("\n".join(figures))
