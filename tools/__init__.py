"""Commands for developers of underfire: draw the galleries, and train the network of the package."""
