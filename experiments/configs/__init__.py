"""One file per experiment; each docstring holds its command and the result to expect."""
