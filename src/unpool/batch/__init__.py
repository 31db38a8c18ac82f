"""Work on many items: what is finished in an output folder."""
