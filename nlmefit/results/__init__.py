"""A fit as a record: its tables, its printing, its file."""
