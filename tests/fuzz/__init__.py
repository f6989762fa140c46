"""Damaged and hostile input for every reader and every verb.

The suite runs a short, seeded profile; `python -m benchmarks.fuzz` runs the long one.
"""
