"""The scripted provider: a real server that answers as each vendor does, or misbehaves, exactly as told."""
