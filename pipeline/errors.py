"""The error for mistakes that the user can mend."""


class UserError(ValueError):
    """A mistake that the user can mend; names file and field, the value found, the value expected, and the next step."""
