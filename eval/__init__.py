"""Benchmark runs with official-exact scores: `python -m eval run|score|pack|report|check`. Not part of the wheel."""
