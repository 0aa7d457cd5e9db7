"""Commands for those who work on underfire: they draw the galleries and train the embedded network."""
