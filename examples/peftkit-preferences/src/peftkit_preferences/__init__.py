"""A training method and a task for peftkit: three answers to a prompt, one of them gold."""
