"""One module per thing on a host; each check's name is the promise it proves."""
