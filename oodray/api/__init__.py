"""The front door: what `import oodray` offers."""
