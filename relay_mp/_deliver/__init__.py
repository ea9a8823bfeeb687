"""The delivering half: runs only where the session's dispatcher runs, in its thread or its process."""
