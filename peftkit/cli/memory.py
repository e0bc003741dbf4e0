"""Commands about memory: plan it, fit it, measure it."""
