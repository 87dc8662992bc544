"""Search of products on sale: by words, filters and counts, over an index that adapters provide."""
