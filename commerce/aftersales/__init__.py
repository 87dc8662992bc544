"""Returns, exchanges, claims and refunds without a return: cases on orders, their policies and deadlines."""
