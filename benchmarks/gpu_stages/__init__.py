"""The stages of `benchmarks/gpu.py`, one file each, in the order of their worth.

A stage is one function, `run(bench)`, and its `SHARE` of the minutes. It keeps each number as soon
as it has it, looks at `bench.left()` between two pieces of work, and raises what it cannot go on
after: the driver says so and begins the next. `requests(setting)` names the plans that it will ask
for, which are made on the processor while earlier stages have the card.
"""
