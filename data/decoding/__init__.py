"""From an encoded image to pixels of the run's size: JPEG, resizing, turning, and threads for it.

`data.decode` puts it together for one file, `data.image_files` for the files of a source.
"""
