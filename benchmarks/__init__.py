"""Timings against the named peers: same work, same process, interleaved, reported as ratios."""
