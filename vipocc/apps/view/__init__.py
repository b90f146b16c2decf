"""A look round a scene in three dimensions, in the browser."""
