"""Error and speed of every codec, in this process: ``python -m benchmarks.codecs``."""
