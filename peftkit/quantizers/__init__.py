"""How a base is held in fewer bits: one class a quantization, found by its name in a recipe."""
