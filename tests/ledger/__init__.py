"""Ledger: cash and its holders, postings of statements, and what the audit finds in them."""
