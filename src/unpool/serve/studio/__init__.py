"""The studio: pages in a browser on top of the service, for one image at a time.

- `pages` has the static files and all routes, `studio.Studio` is what they share.
- `store` keeps images and results in memory for half an hour.
- `jobs` reports progress as it happens.
- `segment` and its neighbors answer the requests of one page each, under `/api`.

The results are those of the command line and of Python for the same options, byte for byte.
"""
