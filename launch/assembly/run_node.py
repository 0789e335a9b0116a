"""The program of a task's process: Launchpad's own entry, once Launchpad can be imported.

python -m classact.launch.assembly.run_node --data_file=FILE --lp_task_id=INDEX
"""

import runpy

from classact.launch.assembly import launchpad

if __name__ == "__main__":
    runpy.run_path(str(launchpad.PROCESS_ENTRY), run_name="__main__")
