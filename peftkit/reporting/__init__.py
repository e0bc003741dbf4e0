"""Tables, curves and model cards: what a person reads of a result."""
