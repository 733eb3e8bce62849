"""HTTP servers for the API process, compared: what they do with bad requests, and what they cost."""
