"""From rows to what a trainer gets: examples, tokens, labels, splits, and their audit."""
