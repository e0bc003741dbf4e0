"""The formats that a trained model can leave in."""
