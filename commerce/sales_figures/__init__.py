"""Figures of sales: from the view to the return, by sale, SKU, minute and day."""
