"""One model on several devices: launching processes, sharing rows and weights."""
