"""A person's own pictures: what is labelled, what is not, and the classifier that comes of both."""
