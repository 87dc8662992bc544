"""Payment providers on one machine: servers that speak their wire protocols, with real signatures and made-up money."""
