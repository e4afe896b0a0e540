"""What people say images show: class folders, and tables of paths and labels."""
