"""Screening: signals of scalpers in a sale, as a score with reasons that staff may overrule."""
