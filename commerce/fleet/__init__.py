"""The own fleet: vehicles, route planning, and routes as drivers carry them out."""
