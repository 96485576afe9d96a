"""The demo: a page that hears uploads, recordings and the live microphone (extra `demo`).

`serve` shows it and `build_app` gives the Gradio app; both take `DemoOptions`. What is heard
comes from the public classifier and stream, and the pictures from `svg`. Importing this package
imports neither Gradio nor a model.
"""

from emoser.demo.options import DemoOptions, is_loopback
from emoser.demo.page import build_app, serve

__all__ = ["DemoOptions", "build_app", "is_loopback", "serve"]
