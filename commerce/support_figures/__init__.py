"""Figures of support: times, deadlines, backlog, satisfaction, rates of returns."""
