"""How workers consume from RabbitMQ: connections, channels and subscriptions of their own."""
