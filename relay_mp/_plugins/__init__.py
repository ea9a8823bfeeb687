"""Plugin configurations: documents, the files that hold them, and what a component registers."""
