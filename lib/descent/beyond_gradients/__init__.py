"""Learning beyond gradients."""
