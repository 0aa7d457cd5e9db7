"""The parts that explanations are made of: the explained output, its gradient, variants of an image, feature maps."""
