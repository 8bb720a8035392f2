"""Benchmarks that need a GPU, one row of the project's figures a module.

`python -m benchmarks.gpu` runs them all, `python -m benchmarks.gpu.<module>` one of them.
"""
