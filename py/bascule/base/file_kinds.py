"""Recognize files that stand in for a model file: a Git LFS pointer, a web page."""

from __future__ import annotations

from bascule.errors import ModelFileError

SNIFFED_NBYTES = 256


def check_kind(head: bytes, file: str) -> None:
    """ModelFileError if a file starts like a Git LFS pointer or an HTML page."""
    text = head[:SNIFFED_NBYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        raise ModelFileError(
            file,
            "it is a Git LFS pointer, not the file itself",
            hint="Fetch the file: run `git lfs pull` in the model's folder, or download it again.",
        )
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        raise ModelFileError(
            file,
            "it is a web page, not the file itself",
            hint="The server has no such file, or asks for a login: check the address.",
        )
