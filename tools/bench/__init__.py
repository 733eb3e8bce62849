"""What `make bench` measures: this server beside `transformers serve --continuous-batching`."""
