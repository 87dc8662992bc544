"""Products: names and list prices. Prices and stock of a sale belong to the sale."""
