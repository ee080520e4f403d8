"""What operators use: the `ish` command, the local stack, the simulated phone, the local model."""
