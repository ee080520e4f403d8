"""What our processes say to RabbitMQ, and how."""
