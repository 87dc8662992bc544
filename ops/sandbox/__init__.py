"""Simulated payment providers and carriers on one machine, with real wire protocols and signatures."""
