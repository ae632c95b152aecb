"""The shell: settings, uploads, routes, wire schemas, errors as HTTP. Does not know torch or NeMo."""
