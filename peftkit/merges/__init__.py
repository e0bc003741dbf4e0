"""Built-in merges: how several adapters become one, by the names that peft gives them."""
