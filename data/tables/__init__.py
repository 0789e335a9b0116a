"""Data that other libraries keep in rows: parquet, CSV, Hugging Face data sets, and objects of a user's own.

`table_source` makes a source of any table with columns: a format gives the columns
(`parquet`, `delimited`, `hugging_face`), and one way of choosing them, of labels, captions,
copies and damage serves all. `items` does the same for objects that are read item by item.
Imports nothing of classact but `data` and `user_code`.
"""
