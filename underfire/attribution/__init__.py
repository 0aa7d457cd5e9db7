"""Parts that interpreters share: the explained score, its gradient, variants of an image, feature maps, superpixels."""
