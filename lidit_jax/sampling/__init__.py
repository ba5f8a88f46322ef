"""From prompts to images with a trained model."""
