"""What the gateway answers, a file for each subject."""
