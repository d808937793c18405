"""Profile tables that the gates validate: small summaries of a whole folder, read in parts."""
