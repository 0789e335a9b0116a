"""Packaging of classact.

The repository's root is the package: `launch/` imports as `classact.launch`,
in an editable install and in a wheel alike.
"""

import setuptools

_FOLDERS = (
    "calls",
    "client",
    "launch",
    "nodes",
    "replay",
    "models",
    "weights",
    "selection",
    "data",
    "experiments",
)
_PACKAGES = [
    name
    for folder in _FOLDERS
    for name in (folder, *(f"{folder}.{inner}" for inner in setuptools.find_packages(folder)))
]

# Lower bounds are the oldest versions tried, requirements.lock has the newest. What computes or
# speaks a protocol has an upper bound too, the next series: there things are renamed and removed.
_REQUIRES = [
    "absl-py>=2.3",
    "cloudpickle>=3.1",
    "cramjam>=2.11,<3",
    "cryptography>=45",
    # Resizes images, where it has wheels; elsewhere Pillow does (data/decoding/resizing.py).
    "cykooz-resizer>=4.0,<5; (sys_platform == 'linux' and platform_machine == 'x86_64')"
    " or (sys_platform == 'darwin' and platform_machine == 'arm64')",
    "dm-haiku>=0.0.16,<0.1",
    # So that one process makes the index of shards.
    "filelock>=3.16",
    "flax>=0.12.0,<0.13",
    # Checksums of TFRecord files.
    "google-crc32c>=1.7,<2",
    "grpcio>=1.76,<2",
    # Headers of HTTP/2, which the learner's readers speak (replay/http2.py).
    "hpack>=4.1,<5",
    "jax>=0.9.0,<0.13",
    "matplotlib>=3.10,<4",
    "ml_collections>=1.1.0",
    # JAX's own: bfloat16 for numpy.
    "ml_dtypes>=0.5",
    "msgpack>=1.1,<2",
    "numpy>=2.1,<3",
    "optax>=0.2.6,<0.3",
    "orbax-checkpoint>=0.11.30,<0.13",
    "pillow>=12.0,<14",
    "protobuf>=6.33,<8",
    "psutil>=7.1",
    # Parquet, which score files are.
    "pyarrow>=22,<26",
    "pyzmq>=27.1,<28",
    "rich>=14.0",
    # Weights of other tools; see weights/files/.
    "safetensors>=0.5,<1",
    "scikit-learn>=1.7,<2",
    "scipy>=1.16,<2",
    # Decodes JPEG, by libjpeg-turbo.
    "simplejpeg>=1.9,<2",
    "tensorboardX>=2.6",
    "tokenizers>=0.22,<0.24",
    # Makes the two environments beside this one; see launch/commands/setup.py.
    "uv>=0.9",
    # Of Launchpad's files, which are no package here; see launch/assembly/launchpad.py.
    "dm-tree>=0.1.9",
    "portpicker>=1.6",
    "six>=1.17",
    "termcolor>=3.0",
]

# Data sets of the Hugging Face hub and of its library, a user's Grain pipelines, and ArrayRecord files.
_HF = ["datasets>=4.4,<6"]
_GRAIN = ["grain>=0.2.15,<0.3"]
_ARRAY_RECORD = ["array-record>=0.8; sys_platform != 'win32'"]

# Rasterises SVG, for `classact data icons` alone.
_ICONS = ["resvg-py>=0.2,<0.6"]

# Shards behind URLs. What opens hf:// comes with tokenizers.
_REMOTE = ["fsspec[http]>=2025.3", "s3fs>=2025.3", "tenacity>=9"]

setuptools.setup(
    name="classact",
    version="0.1.0",
    description="Train large vision models on the part of their data they can learn most from.",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE", "data/*/LICENSES.md"],
    python_requires=">=3.12",
    package_dir={"classact": "."},
    packages=["classact", *(f"classact.{name}" for name in _PACKAGES)],
    package_data={
        "classact.data": ["icons/*", "templates/*", "vocabularies/*"],
        # What is known of the figures' runs.
        "classact.experiments.figures": ["records.jsonl"],
        # What `classact setup` installs.
        "classact.launch.assembly": ["launchpad.lock"],
        "classact.replay": ["requirements.lock"],
        "classact.launch.engines.slurm": ["slurm.sbatch"],
    },
    install_requires=_REQUIRES,
    extras_require={
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "icons": _ICONS,
        "hf": _HF,
        "grain": _GRAIN,
        "arrayrecord": _ARRAY_RECORD,
        "remote": [*_REMOTE, "gcsfs>=2025.3"],
        # With its dashboard, which also takes jobs.
        "ray": ["ray[default]>=2.50,<3"],
        "dev": [
            *_ICONS,
            *_HF,
            *_GRAIN,
            *_ARRAY_RECORD,
            *_REMOTE,
            # An S3 server of tests.
            "flask>=3",
            "flask-cors>=5",
            "moto[s3]>=5.1",
            "hypothesis",
            "import-linter",
            "mypy",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ray>=2.50,<3",
            "ruff",
        ],
    },
    entry_points={"console_scripts": ["classact=classact.launch.commands.cli:entry_point"]},
)
