"""What `-m oumi` would be to torchrun, on a machine without a GPU: oumi 0.9 joins its workers by nccl whatever is there."""

import torch

join = torch.distributed.init_process_group
torch.cuda.set_device = lambda device: None
torch.distributed.init_process_group = lambda backend, device_id, **rest: join(backend="gloo", **rest)

from oumi.cli.main import run  # noqa: E402

run()
