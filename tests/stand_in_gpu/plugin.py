"""For `pytest -p`: the tests that need a GPU, on the stand-in for one."""

from tests.stand_in_gpu import become_a_gpu

become_a_gpu()


def pytest_collection_modifyitems(config, items) -> None:
    chosen = [item for item in items if "gpu" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
