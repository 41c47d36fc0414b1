"""A structured fuzzer: valid files with mutations that know what they change.

    .venv/bin/python -m tests.fuzz --seconds 300 config
    .venv/bin/python -m tests.fuzz --seed 1 --first 4711 --cases 1 gguf

Each case ends in a model that works or in a BasculeError, within 10 s and 300 MB.
"""
