from peftkit.scoring.at_once import tokens_at_once


def test_a_cpu_reads_fewer_tokens_at_once_than_a_gpu_and_others_are_not_bounded() -> None:
    cpu, gpu = tokens_at_once("cpu"), tokens_at_once("cuda")
    assert cpu is not None and gpu is not None
    assert 0 < cpu < gpu
    assert tokens_at_once("mps") is None
