"""Screening: signals, scores, actions and clearings."""
