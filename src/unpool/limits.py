"""Limits on what is read from files, so that none can exhaust memory or time.

A parser checks the sizes that a file states before it allocates anything. Each limit is far above
what real files need, and says why it has its value.
"""

KIB, MIB, GIB = 2**10, 2**20, 2**30

MAX_PIXELS = 178_956_970
"""Pixels of an image or a mask, as in Pillow, which suspects a decompression bomb beyond."""

MAX_TEXT = 16 * MIB
"""Bytes of a card, a recipe, a list or a material; the largest real ones have some 100 kB."""

MAX_MAT = 64 * MIB
"""Bytes of an SBD annotation, as it is and unpacked; the largest, 500 x 500, have some 100 kB."""

MAX_MAT_VARIABLES = 100
"""Variables of a MATLAB file that are looked at; an SBD annotation has one."""

MAX_SCORES = 2**27
"""Class scores of one image whose size is not known, 0.5 GiB: 64 classes on 2 megapixels."""

MAX_ANNOTATIONS = 1 * GIB
"""Bytes of a file of annotations; that of COCO 2017 has 450 MB. It is read in pieces."""

MAX_PIECE = 32 * MIB
"""Bytes of one annotation in such a file; outlines of 10,000 corners have 200 kB."""

MAX_OBJECTS = 3_000_000
"""Annotations in such a file, of some 300 bytes in memory; the largest sets have 2.1 million."""

MAX_DRAWN = 10**9
"""Pixels that the annotations of an image may cover together, some seconds of drawing: 5 layers of
the largest image, or hundreds of usual ones."""

MAX_KEPT = 64 * MIB
"""Bytes of drawn annotations of an image that are kept until all have been ordered."""

MAX_WORLD_FILE = 4 * KIB
"""Bytes of a world file, which has six numbers; beyond some hundred it is another kind of file."""

MAX_PART = 512 * MIB
"""Bytes of an image's part of a file of annotations; noise of 40 megapixels has some 100 MB."""
