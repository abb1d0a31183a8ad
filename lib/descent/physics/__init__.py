"""Methods of the part Physics."""
