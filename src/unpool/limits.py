"""Limits on what is read from files, so that none can exhaust memory or time.

A parser checks the sizes that a file states before it allocates anything. Each limit is far above
what real files need, and says why it has its value.
"""

KIB, MIB, GIB = 2**10, 2**20, 2**30

# ---- any file ------------------------------------------------------------------------------------

MAX_TEXT = 16 * MIB
"""Bytes of a card, a recipe, a list or a material; the largest real ones have some 100 kB."""

MAX_DEPTH = 32
"""Levels of lists and objects in a card, far from the thousand at which Python gives up."""

MAX_MESSAGE = 2000
"""Characters of an error message. A name in a damaged file can have megabytes; a path has 4,096."""

MAX_PATH = 4096
"""Characters of a path in a file, those of Linux; longer ones name no file."""

MAX_HASHED = GIB
"""Bytes of a file that is known by its digest, which takes a second or two to compute."""

MAX_SMOOTHING = 32
"""Pixels of the standard deviation by which scores are smoothed; useful ones are below 4."""

# ---- zip files -----------------------------------------------------------------------------------

MAX_ZIP_DIRECTORY = 16 * MIB
"""Bytes of the list of files in a zip file; `MAX_ZIP_FILES` with names of 100 bytes take 3 MB."""

MAX_ZIP_FILES = 20_000
"""Files in a zip file of models, which has a few for each model."""

MAX_ZIP_BYTES = GIB
"""Bytes that a zip file of models may unpack to, which takes some 5 seconds; a hundred chairs have
some 40 MB."""

MAX_ZIP_RATIO = 100
"""How much larger than itself a zip file of models may be unpacked; models as text shrink to a
third or a tenth."""

MAX_ZIP_SMALL = 16 * MIB
"""Bytes up to which a zip file may unpack to any multiple of itself, which are harmless."""

# ---- images --------------------------------------------------------------------------------------

MAX_PIXELS = 178_956_970
"""Pixels of an image or a mask, as in Pillow, which suspects a decompression bomb beyond."""

MAX_AT_ONCE = 20_000_000
"""Pixels of an image, beyond which `unpool check` reads one at a time rather than eight; eight of
this size take about 1 GB."""

MAX_IMAGE_MEMORY = 1400 * MIB
"""Bytes to decode an image with, by its header: what MAX_PIXELS of a JPEG or a PNG need."""

MAX_IMAGE_STREAM = 256 * MIB
"""Bytes of an image that is read as a whole, as from standard input, which may never end."""

MAX_TAR_MEMBERS = 1_000_000
"""Images in a tar file, some 500 bytes of memory each; shards of WebDataset have some 10,000."""

MAX_LIST = 256 * MIB
"""Bytes of a list of images, which has some 5 million of usual paths."""

MAX_JPEG_WORK = 4 * 10**9
"""Pixels times scans of a JPEG, about 6 seconds: a file of 100 kB can hold thousands of scans."""

MAX_TIFF_TAGS = 200_000
"""Tags of all pages of a TIFF that are looked at; an image of 178 million pixels has some 50."""

MAX_TIFF_SEGMENT = 64 * MIB
"""Bytes of a tile of a TIFF, unless the image is larger; a decoder allocates whole tiles."""

MAX_WORLD_FILE = 4 * KIB
"""Bytes of a world file, which has six numbers; beyond some hundred it is another kind of file."""

# ---- annotations ---------------------------------------------------------------------------------

MAX_ANNOTATIONS = 1 * GIB
"""Bytes of a file of annotations; that of COCO 2017 has 450 MB. It is read in pieces."""

MAX_PIECE = 32 * MIB
"""Bytes of one annotation in such a file; outlines of 10,000 corners have 200 kB."""

MAX_OBJECTS = 3_000_000
"""Entries of a list in such a file, of some 300 bytes in memory; the largest have 2.1 million."""

MAX_DRAWN = 10**9
"""Pixels that the annotations of an image may cover together, some seconds of drawing: 5 layers of
the largest image, hundreds of usual ones, or 50,000 small objects."""

MAX_KEPT = 64 * MIB
"""Bytes of drawn annotations of an image that are kept until all have been ordered."""

MAX_PART = 512 * MIB
"""Bytes of an image's part of a file of annotations; noise of 40 megapixels has some 100 MB."""

MAX_MAT = 64 * MIB
"""Bytes of an SBD annotation, as it is and unpacked; the largest, 500 x 500, have some 100 kB."""

MAX_MAT_NAMES = 64 * KIB
"""Bytes of the names of all fields of a struct in such a file; SBD has three fields."""

MAX_MAT_VARIABLES = 100
"""Variables of a MATLAB file that are looked at; an SBD annotation has one."""

# ---- networks, their weights and results ---------------------------------------------------------

MAX_PARAMETERS = 2**30
"""Parameters of a network, 4 GiB as float32; the largest, the published DeconvNet, has 2**28."""

MAX_LAYERS = 1000
"""Convolutions of a trunk: VGG-19 has 16, and ten thousand take a minute to build."""

MAX_STAGES = 16
"""Poolings of a trunk; after 16 a value of the last map stands for 65,536 pixels."""

MAX_SIDE = 2**12
"""Pixels of the side of a network's input; 4096 x 4096 take 4.3 GB in VGG's first layer."""

MAX_PAD = 1000
"""Pixels of zeros around an image in an FCN, on each side; the published one has 100."""

MAX_TENSORS = 10_000
"""Tensors in a file; each network here has some hundreds, and a name may cost a pass over all."""

MAX_TUPLES = 2**14
"""Tuples in a file of `torch.save`, four a tensor; a nest of some 30,000 can crash Python."""

MAX_FIELDS = 2**18
"""Fields of a Caffe file, seconds of reading; the published DeconvNet, of 1 GB, has some 3,000."""

MAX_WEIGHT = 1e12
"""Weights are smaller, and so are variances: those of maps in the ten thousands reach 1e9."""

MAX_SCORES = 2**27
"""Class scores of one image whose size is not known, 0.5 GiB: 64 classes on 2 megapixels."""

MAX_METRICS = 256 * MIB
"""Bytes of the records of a training run, of some 150 bytes; the longest recipe has 900,000."""

# ---- 3-D models ----------------------------------------------------------------------------------

MAX_MODEL = 64 * MIB
"""Bytes of a model; one of `MAX_FACES` faces has some 40 MB as text, and half of it as GLB."""

MAX_PLY_HEADER = 64 * KIB
"""Bytes of the header of a PLY file; real ones have some hundred."""

MAX_FACES = 500_000
"""Triangles of a model. Each takes 180 bytes, and as much again while the model is read; furniture
has some 10,000."""

MAX_CORNERS = 4 * MAX_FACES
"""Points, and corners of faces, of a model; triangles that share no points need three for each."""

MAX_LINE = MIB
"""Bytes of a line in a model: a face of 50,000 corners. Lines are split into words, which take
20 times their memory."""

MAX_CUTS = 50_000
"""Corners that are tried to cut concave faces into triangles, some 50 microseconds each. Faces up
to five corners, and all that a fan covers, need none."""

MAX_MATERIALS = 2_000
"""Materials of a model, and textures; large scenes have some hundred. Opening a texture takes a
millisecond."""

MAX_NODES = 100_000
"""Placed nodes of a GLB scene, 10 microseconds each; large scenes have some thousand."""

MAX_PARTS = 10_000
"""Placed meshes of a GLB scene, some 200 microseconds each besides that of their faces."""

MAX_TEXTURE_PIXELS = 2**25
"""Pixels of all textures of a model, which take 16 bytes each as they are rendered; larger textures
are halved. Rendered views have at most 2048 x 2048 pixels."""

MAX_TEXTURES_READ = 2**27
"""Pixels of all textures of a model in their files, eight of 4096 x 4096; decoding takes some 20
nanoseconds each."""

MAX_TEXTURE_BYTES = 256 * MIB
"""Bytes of all textures of a model in their files; photographs of 4096 x 4096 have some 10 MB."""

MAX_VIEW_PIXELS = 4096**2
"""Pixels of a rendered view; `unpool render` writes at most 2048 x 2048."""

# ---- the service ---------------------------------------------------------------------------------

MAX_BODY = 20 * MIB
"""Bytes of the body of a request; a photo of 40 million pixels has some 15 MB as a JPEG."""

MAX_BODIES = 256 * MIB
"""Bytes of all bodies in memory at a time, a dozen of the largest, or some hundred usual photos."""

MAX_SERVED_PIXELS = 40_000_000
"""Pixels of an image in a request, those of a large camera, which take 120 MB."""

MAX_SERVED_BYTES = 256 * MIB
"""Bytes of the samples of an image to restore, all pages of a TIFF together."""

MAX_SERVED_PSF = 100
"""Pixels of a length of a PSF in a request; to compute one of this size takes up to 3 seconds."""

MAX_FIELD = 64 * KIB
"""Bytes of an option in a form; the longest real ones are mixtures of styles, with some hundred."""

MAX_OPTIONS = 40
"""Options in a form, twice as many as `unpool segment` has."""

MAX_LISTED = 100_000
"""Images of a folder of results that the studio lists, some 500 bytes of memory each."""

MAX_CONFIG = MIB
"""Characters of a labeling config of Label Studio; one of a thousand classes has some 50,000."""

MAX_JSON_LABELS = 2**22
"""Labels of an image as numbers in JSON, some 12 MB; of larger images they are binary data."""

MAX_HEADER = 4 * KIB
"""Bytes of what the header of an answer says about a result; proxies accept 8 kB together."""

MAX_CONNECTIONS = 64
"""Connections to the service at a time. It bounds those that never send a whole header, since
uvicorn does not."""

MAX_STORED = 256 * MIB
"""Bytes of the images and results that the studio keeps, some hundred of usual photos."""

STORED_SECONDS = 1800
"""Seconds for which the studio keeps an image or a result that is not used."""

MAX_JOBS = 64
"""Jobs whose last event the studio keeps for pages that connect again."""

JOB_SECONDS = 600
"""Seconds of a job of the studio, which shows its progress and can be cancelled at any time."""
