"""Optional extras: an installation without them starts, and says what to install when one is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest

from commerce.fleet.route_map import draw_routes
from commerce.fleet.routing_problem import RoutingProblem, SolveRequest
from commerce.fleet.solver_client import solve_in_subprocess
from commerce.fulfilment import printing
from commerce.fulfilment.documents.model import PackingList
from commerce.kernel.address import Address
from commerce.kernel.errors import NotReady
from commerce.kernel.optional import require_extra


def hide_module(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make a module look as if it was not installed."""
    monkeypatch.setitem(sys.modules, name, cast("Any", None))


def test_require_extra_installed_modules_pass() -> None:
    require_extra("print labels", "fulfilment", "reportlab", "segno")


def test_require_extra_missing_module_names_module_and_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_module(monkeypatch, "reportlab")
    expected = r"^cannot print labels: reportlab is not installed; install floodgate\[fulfilment\]$"
    with pytest.raises(NotReady, match=expected):
        require_extra("print labels", "fulfilment", "segno", "reportlab")


@pytest.mark.parametrize("module", ["reportlab", "fontTools", "segno", "justmytype_intl_cjk"])
def test_draw_packing_list_without_library_is_not_ready(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    hide_module(monkeypatch, module)
    address = Address("Zhang San", "13800000000", "CN", "Hangzhou", "Wenyi West Road 969")
    packing_list = PackingList(UUID(int=1), 1, 1, address, address, [])
    with pytest.raises(NotReady, match=rf"cannot print packing lists: {module} is not installed"):
        printing._draw_packing_list(packing_list)


async def test_solve_without_pyvrp_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_module(monkeypatch, "pyvrp")
    request = SolveRequest(RoutingProblem([], [], [[0]], [[0]]), 0.1, 1)
    with pytest.raises(NotReady, match=r"cannot plan routes: pyvrp is not installed; install floodgate\[fleet\]"):
        await solve_in_subprocess(request, lambda share: None)


def test_draw_routes_without_matplotlib_is_not_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide_module(monkeypatch, "matplotlib")
    with pytest.raises(NotReady, match=r"cannot draw routes: matplotlib is not installed; install floodgate\[fleet\]"):
        draw_routes([], tmp_path / "day.svg")
    assert not (tmp_path / "day.svg").exists()
