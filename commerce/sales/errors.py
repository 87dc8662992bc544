"""Errors of sales, for customers and staff."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound, NotReady, ProblemError


class NoSuchSale(NotFound):
    title = "There is no such sale"


class NoSuchItem(NotFound):
    title = "The sale does not offer this item"


class SaleNotOpen(ProblemError):
    code = "sale_not_open"
    status = 403
    title = "The sale is not open yet"


class SalePaused(ProblemError):
    code = "sale_paused"
    status = 403
    title = "The sale is paused"
    retry_after_s = 10


class SaleClosed(ProblemError):
    code = "sale_closed"
    status = 410
    title = "The sale is over"


class SoldOut(ProblemError):
    code = "sold_out"
    status = 409
    title = "There is not enough left"


class OverLimit(ProblemError):
    code = "over_limit"
    status = 409
    title = "That is more than one customer may buy in this sale"


class InvalidSaleState(Conflict):
    code = "invalid_sale_state"
    title = "The sale's state does not allow this"


class NotEnoughFreeUnits(Conflict):
    code = "not_enough_free_units"
    title = "Fewer units are free than would be taken away"


class LoadInProgress(Conflict):
    code = "load_in_progress"
    title = "Another process is loading the sale right now"


class ServerBehind(NotReady):
    title = "This Redis lacks orders that were seen before"
