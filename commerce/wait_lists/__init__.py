"""Wait-lists: returned units are offered to those who waited longest, with a time to accept."""
