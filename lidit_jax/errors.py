"""The one exception for mistakes a user can fix."""


class LiditError(Exception):
    """A user's mistake: the message names the thing that is wrong and the remedy, in one line.

    The command line prints it as `lidit: error: …` and exits with status 2, without a traceback.
    Anything else that escapes is a bug of ours and keeps its traceback.
    """
