"""The last line that keeps the sidecar inside its memory: it watches, and restarts when it must."""
