"""Processes that carry orders on after acceptance. They never talk to the gateway, only to the databases."""
