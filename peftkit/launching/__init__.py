"""Starting a run in several processes: accelerate's engines, and the files of job systems."""
