"""The one exception for what a user can mend: settings, lists, images, files."""


class InputError(ValueError):
    """Input that cannot be used; lists every problem of its kind, each with what is allowed.

    The stages print it without a traceback and exit with code 1.
    """

    def __init__(self, *problems: str) -> None:
        """Take one line of text per problem."""
        super().__init__("\n".join(problems))
        self.problems = problems
