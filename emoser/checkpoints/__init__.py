"""Find checkpoints, load them strictly in any layout, and save them.

`emoser.checkpoints.resolve` and `files` import neither torch nor transformers.
"""
