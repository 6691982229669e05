"""napari: a dock widget that tracks objects through an Image layer. Only widget.py imports napari."""
