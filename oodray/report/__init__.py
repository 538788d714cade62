"""What people see of a run: progress, status, tables and pictures."""
