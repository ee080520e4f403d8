"""Flows: apps worked through their screens, each app a TOML file of elements and steps in this folder."""
