"""What SLURM puts into the environment: of a batch script, and of each task that srun starts."""

ALLOCATION = {
    "SLURM_JOB_ID": "417",
    "SLURM_JOB_NAME": "study",
    "SLURM_JOB_NODELIST": "127.0.0.1",
    "SLURM_NODELIST": "127.0.0.1",
    "SLURM_NNODES": "1",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_TASKS_PER_NODE": "2",
}
"""Of a batch script with two tasks on one machine: nobody has started them yet."""


def srun_variables(tasks, **more):
    """The environment of each task of a step on one machine."""
    step = ALLOCATION | {
        "SLURM_STEP_ID": "0",
        "SLURM_STEPID": "0",
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_STEP_TASKS_PER_NODE": str(tasks),
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        "SLURM_TASKS_PER_NODE": str(tasks),
        "SLURM_NPROCS": str(tasks),
        "SLURM_NODEID": "0",
        "SLURM_SRUN_COMM_HOST": "127.0.0.1",
        "SLURMD_NODENAME": "127.0.0.1",
    }
    own = [
        {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_TASK_PID": "1", "SLURM_GTIDS": "0,1"}
        for rank in range(tasks)
    ]
    return [step | one | more for one in own]
