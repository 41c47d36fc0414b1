"""Encoder-decoders over texts: config and passes that their families share."""
