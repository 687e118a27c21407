"""One run, from what it is to its record."""
