"""The arithmetic of a training step, faster and smaller than upstream's, and equal to it."""
