"""Every worker can be started by its name, and loads no other."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from workers.registry import NAMES, load_worker


@pytest.mark.parametrize("name", NAMES)
def test_worker_of_each_name_exists(name: str) -> None:
    worker = load_worker(name)
    assert worker.__name__ == name
    assert inspect.iscoroutinefunction(worker)


def test_writer_loads_no_other_worker() -> None:
    check = "import sys, workers.registry as registry; registry.load_worker('order_writer'); print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60)
    loaded = {module.removeprefix("workers.") for module in output.stdout.split() if module.startswith("workers.")}
    assert loaded & {*NAMES} == {"order_writer"}
    assert not [module for module in output.stdout.split() if module.startswith("commerce.aftersales")]
