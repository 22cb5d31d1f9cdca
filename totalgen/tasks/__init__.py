"""What there is to learn: target, condition and codec of a problem, the same while training and while generating."""
