"""Delivers recorded messages to webhook targets, signed, in order, and never into this machine's own network."""
