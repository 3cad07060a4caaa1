"""The mathematics of merging: pure functions over arrays and numbers, the same bits on every machine."""
