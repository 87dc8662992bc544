"""Payments: tenders, refunds and the ledger that balances them."""
