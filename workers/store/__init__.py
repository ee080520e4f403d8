"""What workers read and write in PostgreSQL: claims, commits, and what belongs to them."""
