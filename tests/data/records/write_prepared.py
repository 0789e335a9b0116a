"""Writes `prepared.zip`: small data sets as TensorFlow and TensorFlow Datasets write them.

It runs where these are installed, which is not the tests' own environment. The file here was written by
tensorflow-datasets 4.9.10, tensorflow-cpu 2.15.1 and array-record 0.8.6, under Python 3.11:

    uv venv --python 3.11 other && uv pip install --python other/bin/python tensorflow-datasets==4.9.10 \
        tensorflow-cpu==2.15.1 'tensorflow-metadata<1.16' 'protobuf<5' 'numpy<2' array-record
    other/bin/python tests/data/records/write_prepared.py tests/data/records/prepared.zip

Image i of all of them is that of `table_files.pixels`, its label i % 3, its captions "small i" and "big i".
"""

import pathlib
import sys
import tempfile
import zipfile

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

COUNT, TEST = 40, 8
FORMATS = ("tfrecord", "array_record")


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)


class Insects(tfds.core.GeneratorBasedBuilder):
    """Labelled images, with two splits."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(6, 8, 3)),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cow"]),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {
            "train": self._generate_examples(0, COUNT),
            "test": self._generate_examples(COUNT, COUNT + TEST),
        }

    def _generate_examples(self, start, end):
        for i in range(start, end):
            yield i, {"image": pixels(i), "label": i % 3, "file_name": f"{i}.png"}


class Pairs(tfds.core.GeneratorBasedBuilder):
    """Images with two captions each, in two configurations."""

    VERSION = tfds.core.Version("2.1.0")
    BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in ("long", "short"))

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(6, 8, 3)),
            "captions": tfds.features.Sequence({"text": tfds.features.Text(), "id": np.int64}),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(COUNT if self.builder_config.name == "long" else 2)}

    def _generate_examples(self, end):
        for i in range(end):
            captions = [{"text": f"small {i}", "id": 2 * i}, {"text": f"big {i}", "id": 2 * i + 1}]
            yield i, {"image": pixels(i), "captions": captions}


def write_shards(folder):
    """Two bare TFRecord files, with the names of fields and files of ImageNet's."""
    for shard in range(2):
        with tf.io.TFRecordWriter(str(folder / f"train-{shard:05d}-of-00002")) as writer:
            for i in range(shard * 20, shard * 20 + 20):
                features = {
                    "image/encoded": _bytes(tf.io.encode_png(pixels(i)).numpy()),
                    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[i % 3])),
                    "image/class/text": _bytes(["ant", "bee", "cow"][i % 3].encode()),
                    "image/filename": _bytes(f"{i}.png".encode()),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())


def _bytes(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def main(target):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for kind in FORMATS:
            for builder, config in ((Insects, None), (Pairs, "long"), (Pairs, "short")):
                made = builder(data_dir=folder / kind, config=config, file_format=kind)
                made.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
        (folder / "bare").mkdir()
        write_shards(folder / "bare")
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                inside = path.relative_to(folder)
                if path.is_file() and "downloads" not in inside.parts:
                    archive.write(path, inside)


main(sys.argv[1])
