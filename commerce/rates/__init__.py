"""What carriers charge, and which of them gets a parcel."""
