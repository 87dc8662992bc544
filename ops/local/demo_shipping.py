"""Demonstration warehouses, product logistics, rates and vehicles, as import files."""

from __future__ import annotations

from commerce.fleet.service import Fleet
from commerce.kernel.clock import Clock
from commerce.kernel.postgres import Database
from commerce.rates.service import Rates
from commerce.warehouses.service import Warehouses

_WAREHOUSES = """id,name,phone,country,province,city,district,line,postcode,latitude,longitude
hangzhou,Floodgate Hangzhou,057188880000,CN,Zhejiang,Hangzhou,Yuhang,Cangqian Street 1,311121,30.2803,120.0197
shanghai,Floodgate Shanghai,02166660000,CN,Shanghai,Shanghai,Jiading,Hubin Road 88,201800,31.3756,121.2655
"""
_PRODUCT_LOGISTICS = """sku,warehouse,shelf,weight_g,length_mm,width_mm,height_mm
PHONE-X1,shanghai,A-01-1,480,180,100,60
BUDS-2,shanghai,A-01-3,160,110,110,50
SHOES-42,shanghai,B-04-2,1100,340,220,130
CABLE-C-1M,shanghai,A-02-1,60,140,90,20
KETTLE-17,hangzhou,C-01-2,1700,260,220,280
TEA-LJ-250,hangzhou,C-03-1,340,120,90,150
RICE-5KG,hangzhou,D-01-1,5050,380,250,80
DUVET-200,hangzhou,D-02-1,3200,550,380,250
LAMP-LED,hangzhou,C-02-4,1500,400,200,180
MASK-50,hangzhou,C-05-1,230,190,100,80
"""
# Invented: SF Express serves everything everywhere, zto is cheaper around Shanghai, our own vehicles in Hangzhou.
_RATES = """carrier,region,from_g,to_g,price,currency,days,cod
sf_express,CN,0,1000,18.00,CNY,3,yes
sf_express,CN,1000,3000,26.00,CNY,3,yes
sf_express,CN,3000,10000,44.00,CNY,3,yes
sf_express,CN,10000,30000,98.00,CNY,4,yes
zto,CN/Shanghai,0,3000,9.00,CNY,2,no
zto,CN/Shanghai,3000,30000,21.00,CNY,2,no
zto,CN/Jiangsu,0,3000,10.00,CNY,3,no
zto,CN/Jiangsu,3000,30000,24.00,CNY,3,no
yto,CN/Guangdong,0,3000,11.00,CNY,4,no
yto,CN/Guangdong,3000,30000,29.00,CNY,4,no
own_fleet,CN/Zhejiang/Hangzhou,0,30000,6.00,CNY,1,yes
"""
_VEHICLES = """vehicle_id,warehouse_id,capacity_g,shift_from,shift_to,break_from,break_to,break_s
vehicle-1,hangzhou,600000,08:00,18:00,11:30,13:30,2700
vehicle-2,hangzhou,600000,10:00,20:00,14:00,16:00,2700
vehicle-3,shanghai,600000,08:00,18:00,11:30,13:30,2700
"""
_PLACES = """region,latitude,longitude
cn/zhejiang/hangzhou,30.2741,120.1551
cn/zhejiang/hangzhou/xihu,30.2594,120.1303
cn/zhejiang/hangzhou/gongshu,30.3193,120.1414
cn/zhejiang/hangzhou/shangcheng,30.2425,120.1693
cn/zhejiang/hangzhou/binjiang,30.2084,120.2119
cn/zhejiang/hangzhou/yuhang,30.2736,119.9787
cn/zhejiang/hangzhou/xiaoshan,30.1854,120.2645
"""


async def create_demo_shipping(db: Database, clock: Clock, fleet: Fleet) -> None:
    """Import the demonstration data, unless there is a rate table: then the shop has its own."""
    rates = Rates(db, clock)
    if await rates.list_tables():
        return
    warehouses = Warehouses(db)
    for text in (_WAREHOUSES, _PRODUCT_LOGISTICS):
        report = await warehouses.import_csv(text.splitlines(keepends=True))
        assert not report.errors, report.errors
    for text in (_VEHICLES, _PLACES):
        report = await fleet.import_csv(text.splitlines(keepends=True))
        assert not report.errors, report.errors
    await rates.import_table(_RATES.splitlines(keepends=True), "demonstration", "demo")
