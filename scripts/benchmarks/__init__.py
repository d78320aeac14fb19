"""The benchmark of ``scripts/benchmark.py``: what is compared, how it is timed, what is printed."""

__all__: list[str] = []
