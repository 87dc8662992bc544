"""Sales: opening times, prices, limits per user, and stock."""
