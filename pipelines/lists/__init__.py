"""The annotation files that users have: each format to rows, rows to labels and places on the disk."""
