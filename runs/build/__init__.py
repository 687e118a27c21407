"""From a config node to an object: the ground floor."""
