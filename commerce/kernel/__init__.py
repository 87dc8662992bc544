"""What every business module needs and none owns: money, ids, time, errors, the two databases."""
