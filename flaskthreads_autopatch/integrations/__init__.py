"""One module for each foreign package that it needs; imported by nobody but their users."""
