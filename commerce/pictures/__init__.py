"""Pictures of products: uploaded or fetched, checked, rendered in several sizes, and served."""
