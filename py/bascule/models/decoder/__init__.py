"""What decoder families share."""
