"""The table of Boopathy et al. 2020 for MNIST, with networks that are trained here."""
