"""The layouts of checkpoint folders, one module each; `registry` lists them."""
