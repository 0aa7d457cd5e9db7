"""Commands for developers of underfire: draw the galleries, train the network of the package."""
