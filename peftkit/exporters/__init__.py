"""Write a trained model in another program's format, and measure what was written."""
