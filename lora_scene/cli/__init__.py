"""The door: one file a verb, no logic."""
