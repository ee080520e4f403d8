"""Puts each pool's worker together: what it consumes, with which handler, and in what order things open and close."""
