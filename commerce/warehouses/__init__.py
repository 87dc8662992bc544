"""Where goods lie, and what they weigh."""
