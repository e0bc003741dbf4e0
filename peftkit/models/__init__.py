"""Find, load, quantize and check base models and tokenizers."""
