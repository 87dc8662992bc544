"""Customers who order to one or two doors and pay in ways that need no provider; goods, rates and the way to each door.

Where somebody lives decides who brings the parcel: SF Express, which the driver books; zto and yto, which the desk
books by itself; the own vans. Cash at the door only SF and the vans take.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import msgspec
import orjson

from commerce.warehouses.service import Warehouses
from ops.services import CliServices
from tests.drills.client_record import ClientRecord
from tests.drills.paying_customers import PayingCustomer, PayingCustomers, TenderBody
from tests.support.sales import ADDRESS

PRICES = {"tea": 990, "rice": 1_250, "lamp": 2_400}
STOCK = dict.fromkeys(PRICES, 1_000_000)
ADDRESSES: Mapping[str, Mapping[str, str]] = {
    "ningbo": {**ADDRESS, "city": "Ningbo", "district": "Haishu"},
    "beijing": {**ADDRESS, "province": "Beijing", "city": "Beijing", "district": "Haidian"},
    "shanghai": {**ADDRESS, "province": "Shanghai", "city": "Shanghai", "district": "Pudong"},
    "guangzhou": {**ADDRESS, "province": "Guangdong", "city": "Guangzhou", "district": "Tianhe"},
    "hangzhou": ADDRESS,
}
_ADDRESS_WEIGHTS = (35, 10, 25, 25, 5)
_RICH = 300
_RATES = """carrier,region,from_g,to_g,price,currency,days,cod
sf_express,CN,0,30000,18.00,CNY,1,yes
zto,CN/Shanghai,0,30000,9.00,CNY,2,no
yto,CN/Guangdong,0,30000,9.00,CNY,3,no
own_fleet,CN/Zhejiang/Hangzhou,0,30000,6.00,CNY,1,yes
"""
_WAREHOUSES = """id,name,phone,country,province,city,district,line,postcode,latitude,longitude
hz,Hangzhou,057188880000,CN,Zhejiang,Hangzhou,Yuhang,Cangqian Street 1,311121,30.28,120.02
sh,Shanghai,02166660000,CN,Shanghai,Shanghai,Jiading,Hubin Road 88,201800,31.37,121.26
"""
_PRODUCT_LOGISTICS = """sku,warehouse,shelf,weight_g,length_mm,width_mm,height_mm
tea,hz,A-01,340,150,120,90
rice,hz,B-02,5050,380,250,80
lamp,sh,C-01,1500,400,200,180
"""


async def import_logistics(shop: CliServices) -> None:
    """Warehouses, goods and rates, after the products are there."""
    warehouses = Warehouses(shop.db)
    for text in (_WAREHOUSES, _PRODUCT_LOGISTICS):
        report = await warehouses.import_csv(text.splitlines(keepends=True))
        assert not report.errors, report.errors
    await shop.rates.import_table(_RATES.splitlines(keepends=True), "drill", "drill")


class ReceivingCustomers(PayingCustomers):
    """A till whose customers have goods sent: up to three lines to up to two doors."""

    def __init__(self, record: ClientRecord, rng: Random) -> None:
        super().__init__(record, rng)

    def customer(self) -> PayingCustomer:
        rng, number = self.rng, len(self.customers)
        skus = rng.sample(list(PRICES), rng.choices((1, 2, 3), (60, 30, 10))[0])
        units = {sku: rng.randint(1, 3) for sku in skus}
        doors = rng.choices(list(ADDRESSES), _ADDRESS_WEIGHTS, k=2 if rng.random() < 0.15 else 1)
        lines = [{"sku": sku, "quantity": count, **self._to(count, len(doors))} for sku, count in units.items()]
        total = sum(PRICES[sku] * count for sku, count in units.items())
        wish = self.record.wish(f"rich{rng.randrange(_RICH)}", f"key-{number}", units)
        body: dict[str, Any] = {"sale_id": self.record.sale_id, "lines": lines}
        body["ship_to"] = [_recipient(ADDRESSES[door], number) for door in doors]
        wish.body = orjson.dumps(body)
        made = PayingCustomer(wish, total, [self._parts(total)])
        self.customers[wish.key] = made
        return made

    def _to(self, count: int, doors: int) -> dict[str, Any]:
        """To one door, or some of it to each."""
        if doors == 1:
            return {}
        if count == 1 or self.rng.random() < 0.5:
            return {"ship_to": self.rng.randrange(doors)}
        first = self.rng.randint(1, count - 1)
        return {"ship_to": [{"address": 0, "quantity": first}, {"address": 1, "quantity": count - first}]}

    def _parts(self, total: int) -> list[TenderBody]:
        way = self.rng.choices(("balance", "cod", "both"), (70, 20, 10))[0]
        if way == "both":
            credit = self.rng.randint(1, total - 1)
            return [{"method": "balance", "amount": credit}, {"method": "cod", "amount": total - credit}]
        return [{"method": way, "amount": total}]


def _recipient(door: Mapping[str, str], number: int) -> dict[str, str]:
    """With a telephone of their own, whose last digits carriers ask for."""
    return {**door, "phone": f"138{number % 10**8:08}", "line": f"Road {number % 997} No. {number}"}


def another_address(address: object, rng: Random) -> dict[str, Any]:
    """Another door for a parcel, in any town."""
    found: dict[str, Any] = msgspec.to_builtins(address)
    return {**found, **{name: text for name, text in rng.choice(list(ADDRESSES.values())).items() if name in _PLACE}}


_PLACE = ("province", "city", "district")
