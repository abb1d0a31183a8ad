"""Stability of gradient methods: which minima an optimiser can stay at."""
