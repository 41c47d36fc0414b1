"""Rewrites: a program becomes another one with the same result that stays within a limit."""
