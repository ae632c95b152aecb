"""uvicorn's connections, with limits of what a caller may send or leave unread before any of our code runs."""
