"""What a config can do wrong."""


class ConfigError(ValueError):
    """A config that cannot become a run: one line that names the key, the value and what would be right."""
