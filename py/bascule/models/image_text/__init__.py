"""What families of an image encoder and a text encoder share."""
