"""What models and tables must know of a data set, without its examples."""

import dataclasses
from typing import Any

import numpy as np

from classact.data import classes, shard_stream, source
from classact.data import fingerprint as fingerprint_lib
from classact.data.carried import kinds, opening, sealing
from classact.experiments.config import ExperimentConfig
from classact.launch.assembly.parts import held_out, sources
from classact.nodes import joint_fields
from classact.replay import records

# So many examples tell how large files are.
_FILES = 64


@dataclasses.dataclass(frozen=True)
class DataShape:
    """What models and tables must know of a data set, without its examples.

    Attributes:
        name: of the source.
        num_examples: how many it has, split and all.
        num_classes: K; 0 without labels.
        image_shape: (H, W, C) in pixels.
        codec: packs what the replay carries of its batches into records.
        vocab_size: number of token ids; 0 for a task without texts.
        end_id: the token at which a text ends.
        class_names: of the K classes, by label; None if unknown.
        fingerprint: of the whole data set.
        held_out: which of its examples are not trained on, int64[M]; see `held_out`.
        measured_by: the evaluators that measure on what is trained on.
        classes_of: what its classes are those of, for messages; empty: of itself.
        sent_bytes: of a record, as it is sent and kept, on average: of a file without the zeros behind it.
    """

    name: str
    num_examples: int
    num_classes: int
    image_shape: tuple[int, int, int]
    codec: records.RecordCodec
    vocab_size: int = 0
    end_id: int = 0
    class_names: tuple[str, ...] | None = None
    fingerprint: fingerprint_lib.Fingerprint | None = None
    held_out: np.ndarray | None = dataclasses.field(default=None, compare=False)
    measured_by: tuple[str, ...] = ()
    classes_of: str = dataclasses.field(default="", compare=False)
    sent_bytes: float = dataclasses.field(default=0.0, compare=False)

    @property
    def classes(self) -> classes.Classes:
        """What its labels mean."""
        return classes.Classes(self.num_classes, self.class_names)

    @property
    def example_bytes(self) -> int:
        """Of an example with its pixels, as it is read and scored."""
        return sum(
            array.nbytes
            for name, array in self.examples(1).items()
            if not name.startswith(joint_fields.PREFIX)
        )

    def examples(self, size: int) -> source.Batch:
        """So many examples with the fields of a batch of the replay and their images; all are 0."""
        record = self.codec.unpack(np.zeros((1, self.codec.num_bytes), np.uint8))
        image = np.zeros((1, *self.image_shape), np.uint8)
        return {
            name: np.zeros((size, *array.shape[1:]), array.dtype)
            for name, array in opening.with_images(record, image).items()
        }

    def described(self) -> dict[str, Any]:
        """As JSON has it, what must be equal wherever the data set is opened."""
        names = ("num_examples", "vocab_size", "end_id")
        return {
            **{name: getattr(self, name) for name in names},
            **self.classes.as_json(),
            "image_shape": list(self.image_shape),
            "record": self.codec.schema,
            "fingerprint": self.fingerprint.described() if self.fingerprint else {},
            "held_out_examples": 0 if self.held_out is None else len(self.held_out),
        }


def data_shape(config: ExperimentConfig, data: source.Source, images: str = kinds.PIXELS) -> DataShape:
    """Reads one example to learn the shape; where files are carried some more, to learn how large they are.

    Args:
        config: of the run.
        data: as it was opened for what the replay carries.
        images: that, of `kinds.IMAGES`.
    """
    size = min(_FILES, data.num_examples) if images == kinds.ENCODED else 1
    examples = sealing.Sealer(images)(next(shard_stream.make_stream(data, batch_size=size, seed=0)))
    vocab_size = end_id = 0
    if config.task == "contrastive":
        tokenizer = sources.make_tokenizer(config)
        vocab_size, end_id = tokenizer.vocab_size, tokenizer.end_id
    codec = records.RecordCodec(examples)
    return DataShape(
        data.name,
        data.num_examples,
        data.num_classes,
        data.image_shape,
        codec,
        vocab_size,
        end_id,
        classes.of_source(data).names,
        fingerprint_lib.fingerprint(data),
        held_out.found_in(data),
        sent_bytes=codec.num_bytes - sealing.unused_bytes(examples),
    )
