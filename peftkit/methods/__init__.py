"""The ways to train: each makes rows of examples, a trainer and an evaluator."""
