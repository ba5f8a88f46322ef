"""Files, images and the terminal: bucket paths, atomic writes, image decoding, progress bars.

Every other subpackage may use it. It depends on none of them, and holds nothing about models.
"""
