"""Load for the shop: scenarios for locust, real baskets, benchmarks."""
