"""The HTTP service: segment, restore, project and generate, within limits that each have a code.

- `app.make_app` makes the ASGI application, `server.run` runs it until a signal ends it.
- `guard` refuses foreign hosts, foreign pages and requests without the key.
- `intake` reads bodies and options within their limits.
- `engine` has the one thread that computes, and the bounded queue before it.
- `applications` has what is computed: the same functions as in Python and on the command line.
- `studio` has the pages in a browser.
- `protocols` has what labeling tools and clients of Hugging Face speak.
"""
