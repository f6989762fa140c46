"""Recipes shipped with the package, one commented TOML file each."""
