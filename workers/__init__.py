"""Worker processes, which process accepted orders.

They call databases and external systems, never gateways.
"""
