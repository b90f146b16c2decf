"""Checkpoint files of the released code of ViPOcc and BTS: what stands in them, into our format and back."""
