"""Release of reserved stock and user limits, and its reacquisition for orders that were paid late."""
