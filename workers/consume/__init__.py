"""The one consume path of every command, from its delivery to its ack and its reply."""
