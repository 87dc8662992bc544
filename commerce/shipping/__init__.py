"""Shipments, carriers and tracking."""
