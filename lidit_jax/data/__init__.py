"""Images with captions: procedural scenes and folders of pictures."""
