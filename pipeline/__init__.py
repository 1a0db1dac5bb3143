"""promptmill: run a prompt over every row of a dataset, and book every token."""
