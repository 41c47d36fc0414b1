"""Whisper (Radford et al. 2022): speech to text by an encoder and a decoder."""
