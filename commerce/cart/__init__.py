"""Carts of customers and guests, and their checkouts. A cart reserves nothing."""
