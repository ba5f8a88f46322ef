"""Where arrays live: the device mesh and the rules from logical axes to mesh axes."""
