"""Attack the audit itself: kill runs, fill the disk, flip bits, feed hostile files; `make chaos` writes the results."""
