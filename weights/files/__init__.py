"""Files of named arrays: safetensors, npz, and PyTorch's zip files, none of which is unpickled.

`tensors` says what such a file is; `opened` opens one by its name's ending.
"""
