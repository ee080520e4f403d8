"""The payload of android.execute: actions, their fields, and the command lines that stand for them."""
