"""The suffixes by which a photo is known in a folder, an archive or a dataset.

A file that the user names is tried whatever its suffix is, and what a file is, its
first bytes say (`image_files.py`). This module loads nothing, so that all may use it.
"""

PHOTO_SUFFIXES = frozenset(
    (
        # JPEG; an .mpo holds several, and its first one is read
        ".jpg .jpeg .jpe .jfif .jfi .jif .pjpeg .pjp .mpo "
        ".png .apng .gif .webp .bmp .dib .tif .tiff "
        ".avif .heic .heif .hif "
        ".jp2 .j2k .jpf .jpx "
        ".pbm .pgm .ppm .pnm .pam .pfm "
        ".exr .hdr .ras .tga .dds .psd .ico .cur .qoi .pcx"
    ).split()
)
