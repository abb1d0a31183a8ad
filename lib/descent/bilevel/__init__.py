"""Methods of the part Bilevel optimisation."""
