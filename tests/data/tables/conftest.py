import pytest
import table_files


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """A directory with what `table_files.write_all` writes."""
    folder = tmp_path_factory.mktemp("tables")
    table_files.write_all(folder)
    return folder
