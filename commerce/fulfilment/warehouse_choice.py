"""Chooses the warehouses that ship an order's units, where warehouses keep their stock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from commerce.fulfilment.model import LineToPlan
from commerce.kernel.address import Address
from commerce.rates.model import RegionPath, region_path_of
from commerce.shipping.errors import CannotShip
from commerce.warehouse_stock.model import HeldUnits
from commerce.warehouses.model import Warehouse

_MAX_TOGETHER = 3
"""warehouses of which every combination is tried; more are added one by one"""
_MAX_TRIED = 20
_Holdings = dict[str, dict[str, int]]
"""units by SKU and warehouse"""


class WarehouseChoice:
    """The units that warehouses can ship of sales, less those taken for orders.

    Units that are allotted to the sale come first. What it lacks, such as units that are sent again, comes from those
    that no sale has."""

    def __init__(self, held: Iterable[HeldUnits], warehouses: Mapping[str, Warehouse]) -> None:
        self._allotted: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        self._free: dict[tuple[str, str], int] = {}
        for sale_id, sku, warehouse_id, allotted, free in held:
            self._allotted[sale_id, sku][warehouse_id] = allotted
            self._free[sku, warehouse_id] = free
        self._paths: dict[str, RegionPath] = {
            id_: region_path_of(warehouse.address) for id_, warehouse in warehouses.items()
        }

    def choose(self, sale_id: str, lines: Sequence[LineToPlan], addresses: Sequence[Address]) -> list[LineToPlan]:
        """Return the lines of an order with their warehouses. A line may be divided among several.

        For each address the fewest warehouses are chosen, counting those that ship other lines to it anyway; of equally
        many the nearest, by the part of their regions that is the same. Lines of other SKUs stay as they are. Raises
        `CannotShip` if all warehouses together have too few units."""
        kept = {line.sku for line in lines if (sale_id, line.sku) in self._allotted}
        if not kept:
            return list(lines)
        taken = Counter[tuple[str, str]]()
        chosen = [line for line in lines if line.sku not in kept]
        by_address: dict[int, list[LineToPlan]] = defaultdict(list)
        for line in lines:
            if line.sku in kept:
                by_address[line.address_no].append(line)
        for address_no, group in by_address.items():
            used = {line.warehouse_id for line in chosen if line.address_no == address_no and line.warehouse_id}
            needs = Counter[str]()
            for line in group:
                needs[line.sku] += line.quantity
            holdings = self._list_holdings(sale_id, needs, taken)
            ranked = self._rank(holdings, addresses[address_no])
            together = _find_fewest(needs, holdings, [id_ for id_ in ranked if id_ in used], ranked)
            for line in group:
                chosen += _divide(line, holdings[line.sku], together, needs[line.sku], taken)
        return chosen

    def take(self, sale_id: str, lines: Iterable[LineToPlan]) -> None:
        """Take the units of lines that are planned, so that no later order gets them."""
        for line in lines:
            id_ = line.warehouse_id or ""
            allotted = self._allotted.get((sale_id, line.sku), {})
            if id_ in allotted:
                from_sale = min(line.quantity, allotted[id_])
                allotted[id_] -= from_sale
                self._free[line.sku, id_] -= line.quantity - from_sale

    def _list_holdings(self, sale_id: str, needs: Counter[str], taken: Counter[tuple[str, str]]) -> _Holdings:
        """List the units by SKU and warehouse, from what no sale has only where the sale lacks some."""
        holdings: _Holdings = {}
        for sku, units in needs.items():
            for with_free in (False, True):
                held = {
                    id_: count + (self._free[sku, id_] if with_free else 0) - taken[sku, id_]
                    for id_, count in self._allotted[sale_id, sku].items()
                }
                holdings[sku] = {id_: count for id_, count in held.items() if count > 0}
                if sum(holdings[sku].values()) >= units:
                    break
            else:
                there = sum(holdings[sku].values())
                raise CannotShip(
                    f"warehouses have {there} of {units} units of {sku} for {sale_id}; receive or count some"
                )
        return holdings

    def _rank(self, holdings: _Holdings, address: Address) -> list[str]:
        """List the warehouses that hold any of the units, the nearest to an address first."""
        path = region_path_of(address)
        ids = {id_ for held in holdings.values() for id_ in held}
        return sorted(ids, key=lambda id_: (-_count_shared(self._paths.get(id_, ()), path), id_))


def _count_shared(path: RegionPath, other: RegionPath) -> int:
    """Count the parts at the beginning of two regions that are the same."""
    shared = 0
    for part, other_part in zip(path, other, strict=False):
        if part != other_part:
            break
        shared += 1
    return shared


def _find_fewest(needs: Counter[str], holdings: _Holdings, used: list[str], ranked: list[str]) -> list[str]:
    """Return warehouses that hold all units together.

    Those that are used come first, then the fewest others, the nearest of those first."""
    others = [id_ for id_ in ranked if id_ not in used]
    for count in range(_MAX_TOGETHER + 1):
        for added in combinations(others[:_MAX_TRIED], count):
            if not _find_missing(needs, holdings, together := [*used, *added]):
                return together
    together = list(used)
    while missing := _find_missing(needs, holdings, together):
        left = [id_ for id_ in others if id_ not in together]
        together.append(
            max(left, key=lambda id_: sum(min(units, holdings[sku].get(id_, 0)) for sku, units in missing.items()))
        )
    return together


def _find_missing(needs: Counter[str], holdings: _Holdings, together: Sequence[str]) -> Counter[str]:
    """Return the units by SKU that these warehouses lack."""
    return needs - Counter({sku: sum(holdings[sku].get(id_, 0) for id_ in together) for sku in needs})


def _divide(
    line: LineToPlan, held: dict[str, int], together: Sequence[str], needed: int, taken: Counter[tuple[str, str]]
) -> list[LineToPlan]:
    """Divide a line among warehouses: one that holds all that is needed comes first, then the nearest."""
    parts, left = [], line.quantity
    for id_ in sorted(together, key=lambda id_: held.get(id_, 0) < needed):
        if units := min(left, held.get(id_, 0)):
            parts.append(line._replace(warehouse_id=id_, quantity=units))
            held[id_] -= units
            taken[line.sku, id_] += units
            left -= units
    return parts
