"""How large models are and how fast they predict (Table 9)."""
