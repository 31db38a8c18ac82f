"""The probe of the service, on a small network and without the wait for slow bodies."""

from experiments.probe import TIMED, made_image, probe


def test_the_service_from_outside(pair, capsys):
    failed = probe(["--weights", pair, "--precision", "fp32"], made_image(), 2, slow=False)
    assert {*failed} <= {*TIMED}, capsys.readouterr().out
