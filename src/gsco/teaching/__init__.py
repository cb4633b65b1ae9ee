"""Teaching a generalist: training records from datasets, with simulated and out-of-fold evidence."""
