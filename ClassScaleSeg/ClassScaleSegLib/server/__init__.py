"""The server: segments images that come by HTTP, one job per device at a time. It needs FastAPI and uvicorn."""
