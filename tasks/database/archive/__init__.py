"""The `mongodump --archive` format, read and written natively."""
