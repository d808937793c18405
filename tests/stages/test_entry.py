"""What every stage starts with."""

import subprocess
import sys


def test_a_stage_does_without_what_it_leaves_out() -> None:
    """Lost otherwise: every light stage would import pandas in passing, half a second each."""
    code = (
        "import sys\nfrom stages import entry\n"
        "def main():\n    import pyarrow as pa\n    assert pa.array([1, 2]).to_pylist() == [1, 2]\n"
        "    import torch._dynamo  # looks whether pandas is there\n    print('pandas' in sys.modules)\n"
        "entry(main, without=['pandas'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
