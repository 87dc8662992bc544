"""The business: products, sales, orders, payments, shipments, the fleet.

No HTTP and no process loops; the gateway and the workers build on it.
"""
