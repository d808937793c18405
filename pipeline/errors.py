"""The error for mistakes that the user can mend."""


class UserError(ValueError):
    """A mistake that the user can mend; names file, field, value found, value expected and next step."""
