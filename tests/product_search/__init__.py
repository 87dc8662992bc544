"""Product search: the index, what it finds, and the API."""
