"""The exception that carries a sentence for the administrator."""


class AwsOvsError(Exception):
    """Say what is wrong and what to do about it.

    Args:
        what: what is wrong, with the value.
        remedy: what the administrator does about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"
