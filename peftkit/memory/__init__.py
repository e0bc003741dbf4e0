"""Plan a step's memory by running it on fake tensors under a storage tracker."""
