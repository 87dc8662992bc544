"""The engine of deferred work: one table of jobs, claims in batches, results in batches, wake-ups."""
