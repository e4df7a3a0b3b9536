"""Ingest: find the uploads (index), and extract each one's episodes once, from any format that a reader knows (job).

Bring your own format: one class with the interface of reader.Reader, named in formats.READERS.
"""
