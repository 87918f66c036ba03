"""Running a study: cells, the store that keeps them, leases, executors."""
