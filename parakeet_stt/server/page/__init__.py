"""The page for people at `/`: files in static/, which need no build step and no other server."""
