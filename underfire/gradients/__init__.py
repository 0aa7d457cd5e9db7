"""Parts that compute a gradient: views of the input, estimators of the gradient, and smoothing of the result."""
