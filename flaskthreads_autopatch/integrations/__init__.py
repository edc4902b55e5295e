"""One module for each foreign package; nobody imports them but who uses that package."""
