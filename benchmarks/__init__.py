"""Benchmarks of speed and memory against plain implementations of published procedures."""
