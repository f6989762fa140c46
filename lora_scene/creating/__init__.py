"""What an adapter is for: pictures."""
