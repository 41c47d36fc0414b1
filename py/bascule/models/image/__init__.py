"""What families of images share."""
