"""Conversations of customers with support: messages, notes, attachments, and the queue of staff."""
