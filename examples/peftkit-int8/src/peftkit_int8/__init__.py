"""A quantizer for peftkit: int8 weights by torchao."""
