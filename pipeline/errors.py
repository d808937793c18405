"""The error for mistakes that the user can mend."""


class UserError(ValueError):
    """Something the user can mend: names the thing, what was found, what was expected and the next step."""
