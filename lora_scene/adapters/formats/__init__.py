"""The file layouts that other programs read."""
