"""The sampling law at every temperature, with a run loop, a table and a reader as in a run.

At T = 0.1 a run took 30 % of its examples from the worse half, at 0.05 46 %, without a word.
"""

import itertools
import threading

import numpy as np
import pytest
import replay_servers

from classact.nodes import run_loop
from classact.nodes.clocks import Clocks
from classact.nodes.inference_server import Scores
from classact.replay import config, dataset, records, writer

CONFIG = config.TableConfig(batch_size=64, samples_per_insert=0.5, capacity=512)
SUPER_BATCH, BATCHES = 128, 60


@pytest.mark.parametrize(
    ("temperature", "share"), [(1.0, 0.112), (0.25, 0.030), (0.1, 0.013), (0.05, 0.011), (0.02, 0.010)]
)
def test_the_share_of_the_worse_half_is_that_of_the_softmax(temperature, share):
    """Losses ~ Gamma(4, 1.7), score = −loss, share above the median loss: values of an exact simulation."""
    rng, stop = np.random.default_rng(0), threading.Event()
    losses = np.clip(rng.gamma(4, 1.7, (3 * BATCHES, SUPER_BATCH)), 0.01, 16.0)
    ids = np.arange(losses.size).reshape(losses.shape)
    codec = records.RecordCodec({"id": ids[0]})
    with replay_servers.serving(CONFIG, codec.num_bytes) as server:
        drawn = drawn_from(server.address, codec, losses, ids, temperature, stop)
    assert len(np.unique(drawn)) == len(drawn)
    # The machine decides who reads and who writes first, and what is drawn in a burst is worse by up to
    # a few per cent under any law; `tests/replay/test_law.py` tests the law itself, draw by draw.
    assert np.mean(losses.ravel()[drawn[CONFIG.capacity :]] > 6.24) == pytest.approx(share, abs=0.1)


def drawn_from(address, codec, losses, ids, temperature, stop):
    """Writes and reads as a run does; the ids that were drawn."""
    clocks, number = Clocks(1), itertools.count()
    out = writer.ReplayWriter(address, codec, CONFIG.table_names, stop)
    loop = run_loop.RunLoop(
        ({"id": each} for each in ids),
        lambda batch: Scores(-losses[next(number)].astype(np.float32), 0),
        out,
        temperature,
        stop,
        clock=lambda: clocks.all()[0],
    )
    thread = threading.Thread(target=loop.run)
    reader = dataset.ReplayDataset([address], config.EXAMPLES_TABLE, codec, 64, stop, drawn=clocks.drawn)
    thread.start()
    try:
        return np.concatenate([reader.next(timeout=20)["id"] for _ in range(BATCHES)])
    finally:
        stop.set()
        thread.join()
        reader.close()
