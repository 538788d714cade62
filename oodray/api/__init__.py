"""The front door in Python: what the command line calls, and `import oodray` offers."""
