"""Articles in Chinese and English: written, reviewed, published, searched, and rated by readers."""
