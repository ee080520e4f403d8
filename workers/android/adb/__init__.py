"""The adb server's own protocol: phones listed, lines run, files moved."""
