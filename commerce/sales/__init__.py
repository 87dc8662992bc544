"""Sales: when something is sold, at which price, to how many a user, and how many there are."""
