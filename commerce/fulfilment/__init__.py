"""Fulfilment: from a paid order to shipments that are handed over, by workers and by staff."""
