"""One file per business module: what it offers over HTTP."""
