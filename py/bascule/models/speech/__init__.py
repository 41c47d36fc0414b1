"""What families of speech models share: their sizes."""
