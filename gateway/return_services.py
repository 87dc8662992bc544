"""The services of returns that request handlers use."""

from __future__ import annotations

from dataclasses import dataclass

from commerce.aftersales.case_inspections import CaseInspections
from commerce.aftersales.case_policy import AftersalesPolicy
from commerce.aftersales.case_receipts import CaseReceipts
from commerce.aftersales.case_returns import CaseReturns
from commerce.aftersales.return_steps import CaseFollower
from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from commerce.rates.service import Rates
from commerce.return_shipments.carrier_selection import ReturnCarriers
from commerce.return_shipments.return_labels import ReturnLabels
from commerce.return_shipments.service import ReturnShipments
from commerce.shipping.carrier_port import CarrierRegistry
from commerce.shipping.policy import ShippingPolicy


@dataclass(frozen=True, slots=True)
class ReturnServices:
    """Return shipments of cases, what warehouses receive of them, inspections and labels."""

    shipments: CaseReturns
    receipts: CaseReceipts
    inspections: CaseInspections
    labels: ReturnLabels


def build_returns(
    db: Database,
    clock: Clock,
    ids: IdGenerator,
    carriers: CarrierRegistry,
    shipping: ShippingPolicy,
    aftersales: AftersalesPolicy,
) -> ReturnServices:
    """Build the services. Calls to carriers are jobs for the fulfilment worker."""
    return_carriers = ReturnCarriers(Rates(db, clock), carriers, shipping, ids)
    returns = ReturnShipments(ids, return_carriers, CaseFollower(ids, aftersales))
    return ReturnServices(
        CaseReturns(db, clock, returns, aftersales),
        CaseReceipts(db, clock, ids, aftersales),
        CaseInspections(db, clock, aftersales),
        ReturnLabels(db),
    )
