"""The scripted provider: an OpenAI-style server on a real socket that answers, or misbehaves, exactly as told."""
