"""Labels that people gave to images: class folders, and tables of paths and labels."""
