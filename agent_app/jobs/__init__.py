"""Long work: jobs that run in the background of the serving processes."""
