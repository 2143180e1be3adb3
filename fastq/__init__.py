"""FAST-Q (arXiv 2504.21383): a plugin of the suite that knows of it no more than any other does."""
