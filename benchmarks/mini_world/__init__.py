"""The mini world: drawings composed into captioned scenes, and the small base trained on them."""
