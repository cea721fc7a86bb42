"""Pure tensor functions with a leading task axis T."""
