"""Dead letters: accepted orders that Postgres refused. A person retries or discards each of them."""
