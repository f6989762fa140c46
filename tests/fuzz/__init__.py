"""Damaged and hostile input for every reader and every verb.

The suite runs a short, seeded profile; `python -m tests.fuzz` runs the long one, 10,000 cases a
reader.
"""
