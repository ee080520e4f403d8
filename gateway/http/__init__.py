"""HTTP itself: connections, requests and their bounds, errors, cursors, server-sent events."""
