"""Rewrites: a program becomes another one that keeps the result and stays within a limit."""
