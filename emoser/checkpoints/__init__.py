"""From a name to a model: find the folder, know its layout, load it strictly, and save it.

`find_checkpoint` needs neither torch nor transformers; `load_model` imports both.
"""
