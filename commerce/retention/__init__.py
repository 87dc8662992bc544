"""Deletion of rows that nobody needs any more, by age and in small steps."""
