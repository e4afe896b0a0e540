"""Images: where they come from, what their files say, their labels, and their pixels."""
