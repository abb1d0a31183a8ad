"""Curvature: second-order methods and the approximations that make them affordable."""
