"""What is known of each phone: who it is, how it is, and which connection leads to it."""
