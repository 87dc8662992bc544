"""Search in Chinese and English texts: normalised, split into words and characters, scored in memory."""
