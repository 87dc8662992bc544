"""Products: what can be sold at all. What it costs in a sale, and how many there are, belongs to the sale."""
