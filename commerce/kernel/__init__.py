"""Code that every business package needs and none owns: money, ids, time, errors, the two databases."""
