"""The ish command: a file for each group of its commands, and how they all read and write."""
