"""Tests of categories and attributes."""
