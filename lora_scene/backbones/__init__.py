"""The base models: Stable Diffusion 1.x, 2.x and XL behind one small interface."""
