"""A source and a task for peftkit: what installed Python distributions are for, in one line."""
