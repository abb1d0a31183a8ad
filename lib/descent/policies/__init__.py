"""Policies: gradients estimated from samples that the policy itself has drawn."""
