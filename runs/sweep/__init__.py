"""Many runs: who starts them, watches them, and ends those that hang."""
