"""A whole shop on one machine: embedded servers, supervisor, sandbox and demonstration data."""
