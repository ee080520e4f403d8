"""What separate processes must agree on: messages, topology, settings, errors, tables. Imports nothing of ours."""
