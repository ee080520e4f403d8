"""Messages that no worker runs: what the broker dead-lettered or could not route ends with a result."""
