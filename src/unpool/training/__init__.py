"""The training engine: one loop and one run folder for every application."""
