"""Packaging of classact.

The repository's root is the package: `launch/` imports as `classact.launch`,
in an editable install and in a wheel alike.
"""

import setuptools

_FOLDERS = ("launch", "nodes", "replay", "models", "selection", "data", "experiments")
_PACKAGES = [
    name
    for folder in _FOLDERS
    for name in (folder, *(f"{folder}.{inner}" for inner in setuptools.find_packages(folder)))
]

_REQUIRES = [
    # Launchpad 0.5.1 and Reverb 0.7.x are built against TensorFlow 2.8 and
    # nothing else; see the version matrix in BUILD_NOTES.md before changing one.
    "dm-launchpad==0.5.1",
    "dm-reverb==0.7.2",
    "tensorflow-cpu==2.8.4",
    "protobuf==3.19.6",
    "numpy==1.26.4",
    "jax==0.6.2",
    "jaxlib==0.6.2",
    "flax==0.10.7",
    "optax==0.2.8",
    "dm-haiku==0.0.17",
    "orbax-checkpoint==0.11.39",
    "absl-py==2.3.1",
    "ml_collections==1.1.0",
    "matplotlib==3.10.7",
    "pillow==12.0.0",
    "psutil==7.1.3",
    "rich==15.0.0",
    "scikit-learn==1.7.2",
    "tensorboardX==2.6",
    "tokenizers==0.23.3",
]

# Rasterises SVG, for `classact data icons` alone.
_ICONS = ["resvg-py==0.5.0"]

setuptools.setup(
    name="classact",
    version="0.1.0",
    description="Train large vision models on the part of their data they can learn most from.",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE", "data/*/LICENSES.md"],
    python_requires=">=3.10,<3.11",
    package_dir={"classact": "."},
    packages=["classact", *(f"classact.{name}" for name in _PACKAGES)],
    package_data={
        "classact.data": ["icons/*", "templates/*", "vocabularies/*"],
        "classact.launch.engines.slurm": ["slurm.sbatch"],
    },
    install_requires=_REQUIRES,
    extras_require={
        "cuda": ["jax[cuda12]==0.6.2"],
        "tpu": ["jax[tpu]==0.6.2"],
        "icons": _ICONS,
        # The last Ray that accepts that protobuf; with its dashboard, which also takes jobs.
        "ray": ["ray[default]==2.48.0"],
        "dev": [
            *_ICONS,
            "hypothesis==6.148.2",
            "import-linter==2.7",
            "mypy==1.18.2",
            "pytest==9.0.1",
            "pytest-timeout==2.4.0",
            "pytest-xdist==3.8.0",
            "ray==2.48.0",
            "ruff==0.14.6",
        ],
    },
    entry_points={"console_scripts": ["classact=classact.launch.commands.cli:entry_point"]},
)
