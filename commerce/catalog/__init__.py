"""Products and their variants: names and list prices. Prices and stock of a sale belong to the sale."""
