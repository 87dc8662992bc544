"""The own fleet: vans, their routes for a day, what their drivers report."""
