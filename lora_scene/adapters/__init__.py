"""What comes out: adapters, their file formats, their checks, their way to a hub."""
