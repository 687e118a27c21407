"""Fast operations: each gives the numbers of a plain twin in tests/reference, sooner."""
