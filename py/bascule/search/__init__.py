"""Search by similarity: rows of numbers on a device, compared there."""
