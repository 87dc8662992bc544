"""Cases on orders: returns, exchanges, claims and refunds without a return."""
