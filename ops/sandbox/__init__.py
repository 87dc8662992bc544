"""Payment providers and carriers on one machine: servers that speak their wire protocols, with real signatures, made-up
money and made-up parcels."""
