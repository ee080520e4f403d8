"""OpenAI's dialect at `/v1/`: the same durable commands behind the forms that every OpenAI SDK speaks."""
