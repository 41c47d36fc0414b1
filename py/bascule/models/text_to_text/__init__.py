"""Encoder-decoders over texts: settings and passes that their families share."""
