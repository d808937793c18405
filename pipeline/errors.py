"""UserError: an error that the user can fix."""


class UserError(ValueError):
    """An error that the user can fix; names file, field, value found, value expected and next step."""
