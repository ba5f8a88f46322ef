"""From prompts to images with a trained model, in Python and behind `lidit sample`."""
