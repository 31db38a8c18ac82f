from unpool.training.progress import Lines


def test_a_line_every_ten_seconds(clock, capsys):
    update = Lines("segmenting")
    for done in range(26):
        update(done, 100, "")
        clock(1)
    assert capsys.readouterr().err.splitlines() == [
        "unpool: segmenting: 10 of 100 (10 %), 1 min 30 s left",
        "unpool: segmenting: 20 of 100 (20 %), 1 min 20 s left",
    ]


def test_lines_say_what_is_being_done(clock, capsys):
    update = Lines("training")
    clock(20)
    update(0, 0, "reading views")
    clock(20)
    update(3.5, 4, "loss 0.5")
    assert capsys.readouterr().err.splitlines() == [
        "unpool: reading views: 0 of 0",
        "unpool: loss 0.5: 3 of 4 (88 %)",
    ]


def test_the_time_left_counts_from_where_a_resumed_run_begins(clock, capsys):
    update = Lines("training")
    update(900, 1000, "")
    clock(20)
    update(910, 1000, "")
    assert capsys.readouterr().err == "unpool: training: 910 of 1000 (91 %), 3 min 0 s left\n"


def test_another_piece_of_work_is_timed_anew(clock, capsys):
    update = Lines("training")
    update(0, 5, "looking for proposals")
    clock(5)
    update(4, 5, "looking for proposals")
    update(0, 100, "loss 2")
    clock(10)
    update(50, 100, "loss 1")
    assert capsys.readouterr().err == "unpool: loss 1: 50 of 100 (50 %), 10 s left\n"
