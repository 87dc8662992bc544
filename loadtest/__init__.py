"""Load tests: scenarios for locust, replay of a retail data set, benchmarks and the capacity model."""
