"""Policies of deadlines: working time that support has, by team, kind and priority."""
