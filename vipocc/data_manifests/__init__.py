"""Which frames exist, where, calibrated how: adapters, the manifest, splits, preparation and ground truth.

`stage.ensure_prepared` is what other stages call; `manifest.Manifest` is what they get. Importing the package loads
none of its modules.
"""
