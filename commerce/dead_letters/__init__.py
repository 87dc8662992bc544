"""Accepted orders that could not be written. None is lost: a person retries or discards them."""
