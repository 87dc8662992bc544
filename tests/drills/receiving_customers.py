"""Customers who order to one or two addresses and pay without providers.

The address decides which carrier is chosen: SF Express, which workers book; zto and yto, which staff book; or the own
fleet. Only SF Express and the own fleet take cash on delivery.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import msgspec
import orjson

from commerce.warehouses.service import Warehouses
from ops.services import CliServices
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
_CUSTOMERS = 300
_AREA_FIELDS = ("province", "city", "district")
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
    """Import warehouses, product logistics and rates. The products must exist."""
    warehouses = Warehouses(shop.db)
    for text in (_WAREHOUSES, _PRODUCT_LOGISTICS):
        report = await warehouses.import_csv(text.splitlines(keepends=True))
        assert not report.errors, report.errors
    await shop.rates.import_table(_RATES.splitlines(keepends=True), "drill", "drill")


class ReceivingCustomers(PayingCustomers):
    """Customers whose orders are shipped: up to three lines to up to two addresses."""

    def add_customer(self) -> PayingCustomer:
        rng, number = self.rng, len(self.by_key)
        skus = rng.sample(list(PRICES), rng.choices((1, 2, 3), (60, 30, 10))[0])
        units = {sku: rng.randint(1, 3) for sku in skus}
        names = rng.choices(list(ADDRESSES), _ADDRESS_WEIGHTS, k=2 if rng.random() < 0.15 else 1)
        lines = [
            {"sku": sku, "quantity": count, **self._choose_ship_to(count, len(names))} for sku, count in units.items()
        ]
        total_minor = sum(PRICES[sku] * count for sku, count in units.items())
        intended = self.record.add_intended(f"rich{rng.randrange(_CUSTOMERS)}", f"key-{number}", units)
        body: dict[str, Any] = {"sale_id": self.record.sale_id, "lines": lines}
        body["ship_to"] = [_make_recipient(ADDRESSES[name], number) for name in names]
        intended.body = orjson.dumps(body)
        customer = PayingCustomer(intended, total_minor, [self._make_tenders(total_minor)])
        self.by_key[intended.key] = customer
        return customer

    def _choose_ship_to(self, count: int, addresses: int) -> dict[str, Any]:
        """Send a line to one of the addresses, or some units to each."""
        if addresses == 1:
            return {}
        if count == 1 or self.rng.random() < 0.5:
            return {"ship_to": self.rng.randrange(addresses)}
        first = self.rng.randint(1, count - 1)
        return {"ship_to": [{"address": 0, "quantity": first}, {"address": 1, "quantity": count - first}]}

    def _make_tenders(self, total_minor: int) -> list[TenderBody]:
        method = self.rng.choices(("balance", "cod", "both"), (70, 20, 10))[0]
        if method == "both":
            credit = self.rng.randint(1, total_minor - 1)
            return [{"method": "balance", "amount": credit}, {"method": "cod", "amount": total_minor - credit}]
        return [{"method": method, "amount": total_minor}]


def _make_recipient(address: Mapping[str, str], number: int) -> dict[str, str]:
    """Return the address with a phone number of its own, whose last digits carriers require for queries."""
    return {**address, "phone": f"138{number % 10**8:08}", "line": f"Road {number % 997} No. {number}"}


def another_address(address: object, rng: Random) -> dict[str, Any]:
    """Return the address of a shipment moved to the area of a random address."""
    fields: dict[str, Any] = msgspec.to_builtins(address)
    area = rng.choice(list(ADDRESSES.values()))
    return {**fields, **{name: text for name, text in area.items() if name in _AREA_FIELDS}}
