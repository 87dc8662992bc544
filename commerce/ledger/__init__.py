"""Accounts and postings of the ledger, and the cash that carriers, drivers and the shop hold."""
