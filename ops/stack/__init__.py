"""The local stack: every service and process of ISH Chat on one machine, without Docker and without root."""
