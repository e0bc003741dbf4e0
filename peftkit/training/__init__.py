"""From a recipe to trained weights: prepare, load, train, save, open again."""
