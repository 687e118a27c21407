"""Other people's weights: one file per family, both directions beside each other."""
