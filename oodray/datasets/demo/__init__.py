"""The demo's scenes, drawn by the package itself."""
