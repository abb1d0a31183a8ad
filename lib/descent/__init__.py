"""Methods of the thirty papers, in torch; knows nothing of the book."""
