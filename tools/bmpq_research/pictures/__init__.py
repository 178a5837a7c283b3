"""The drawn figures of the documents."""
