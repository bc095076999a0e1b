"""Frozen image activations: encoding, caching and loading."""
