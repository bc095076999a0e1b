"""Activations of images that a frozen tower computes once: encoded, cached, loaded."""
