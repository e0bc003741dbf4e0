"""Say which devices a plan fits, how fast it runs there, and what to change where it does not."""
