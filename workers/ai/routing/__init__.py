"""Which target an AI command asks first, next and beside another: routing, policies and measured latency."""
