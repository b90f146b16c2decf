"""What anybody needs to predict for a protocol: its frames, its query points, and where the predictions go."""
