"""What several tests of the data put in the place of captions."""

import numpy as np


class Numbered:
    """Captions of two tokens that are their own numbers."""

    name = "ids"

    def take(self, captions):
        ids = np.stack([captions, captions], axis=1)
        return ids, np.ones(ids.shape, bool)
