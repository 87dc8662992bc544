"""Categories of products: their tree, the attributes of products, and choices."""
