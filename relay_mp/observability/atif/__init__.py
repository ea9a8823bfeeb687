"""What each agent did, step by step, as ATIF v1.7 trajectories: files, HTTP storage, or one on request."""
