"""What is kept of each epoch, around kills."""

from bmpq_research.experiments.epoch_log import EpochWatch, read_epochs


def test_an_epoch_whose_line_was_cut_short_is_logged_again(tmp_path):
    watch = EpochWatch(tmp_path)

    def log(epoch, loss):
        watch.on_epoch_begin(epoch)
        watch.on_epoch_end(epoch, {"loss": loss})

    log(0, 2.0)
    log(1, 1.5)
    file = tmp_path / "epochs.jsonl"
    file.write_text(file.read_text()[:-20])
    assert [told["epoch"] for told in read_epochs(tmp_path)] == [0]
    log(1, 1.4)
    log(2, 1.0)
    assert [(told["epoch"], told["loss"]) for told in read_epochs(tmp_path)] == [
        (0, 2.0),
        (1, 1.4),
        (2, 1.0),
    ]
