"""The address book: addresses that customers save, one of them as the default."""
