"""Quality of products: points, notes, the gate before publication, figures by day."""
