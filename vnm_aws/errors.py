"""The one exception that carries a sentence for the administrator."""


class AwsOvsError(Exception):
    """What is wrong, with the value, and what to do about it: one sentence, shown as it is."""
