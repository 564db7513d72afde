"""Files of models and checkpoints: registry of classes, one codec, one kind of file with a digest.

``_fields`` says what attributes must be, ``_registry`` which classes files hold, ``_codec`` turns
objects into JSON and ``_arrays``, ``_files`` writes and reads both, ``_models`` has `save` and
`load`.
"""
