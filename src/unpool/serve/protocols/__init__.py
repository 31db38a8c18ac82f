"""Protocols of other programs, so that they use the service as it is."""
