"""Files and folders: written whole or not at all, resumed, and read within limits of time and size."""
