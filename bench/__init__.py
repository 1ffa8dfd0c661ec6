"""Benchmark harness: websock beside its peers. Run it as ``python -m bench``."""
