"""File and terminal utilities: local and bucket paths, atomic writes, progress bars.

Every other subpackage may use it. It depends on none of them, and holds nothing about models.
"""
