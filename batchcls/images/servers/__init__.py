"""Programs that list and read slides in processes of their own, and the memory and names that they share with this one.

They start often, so they import little: nothing from the sources, and no pyarrow.
"""
