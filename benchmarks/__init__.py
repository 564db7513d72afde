"""Benchmarks of skiehercl: ``python -m benchmarks`` from the repository root lists them."""
