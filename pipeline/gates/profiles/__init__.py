"""Profile tables that the gates judge: small summaries of a whole folder, read in parts."""
