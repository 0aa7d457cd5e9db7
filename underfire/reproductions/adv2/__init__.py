"""ADV² as published (Zhang et al. 2020): audits of several systems, and what was claimed about them."""
