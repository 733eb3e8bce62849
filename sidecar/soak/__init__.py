"""`llm-sidecar soak`: the worst mix of requests for minutes, and what it did to the memory."""
