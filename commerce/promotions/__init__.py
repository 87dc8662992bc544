"""Promotions of a sale: what they take off an order, how that is shared out, and how staff set them."""
