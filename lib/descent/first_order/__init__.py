"""First-order methods."""
