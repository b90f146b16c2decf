"""`vipocc priors report`: what the priors amount to, as one page a person looks at before training."""
