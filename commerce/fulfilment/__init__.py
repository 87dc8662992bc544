"""The shipping desk: what staff see of parcels and do with them."""
