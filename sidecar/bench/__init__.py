"""`llm-sidecar bench`: how fast a server of OpenAI's chat API answers, whoever made it."""
