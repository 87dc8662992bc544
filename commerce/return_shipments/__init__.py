"""Shipments on their way back: collected by carriers or sent by customers, and tracked."""
