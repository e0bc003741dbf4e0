"""From a YAML file to a checked recipe to native objects."""
