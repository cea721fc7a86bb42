"""Pictures for people: episodes as the backbone receives them, counts, accuracies and maps of features."""
