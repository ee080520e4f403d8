"""What stands in for the world: phones, AI providers and a small model, each behind its real protocol."""
