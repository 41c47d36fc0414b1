"""What families with an image encoder and a text encoder share."""
