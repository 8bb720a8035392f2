"""Benchmarks of dlferry: one question a module, answered with `python -m benchmarks.<module>`."""
