"""Quality of products: a grade with reasons, the gate before publication, and figures by day."""
