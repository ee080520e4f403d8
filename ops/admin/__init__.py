"""What the commands of ish do: keys, publishers, targets, phones, topology; no terminal here."""
