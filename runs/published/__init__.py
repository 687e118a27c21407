"""Other people's weights: one file per family, both directions beside each other. A file that has a FAMILY is one."""
