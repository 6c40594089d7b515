"""Count the costs of the model: parameters, multiply-adds, memory and depth."""

import torch

from minet.core.cli import parse_paths, run
from minet.core.files import read_csv, write_json
from minet.core.settings import read_settings
from minet.cost.config import CostRunSettings
from minet.cost.counter import count_costs, counts_disagree
from minet.nn.build import build_by_name


def main() -> None:
    """Count one forward pass; report the operations that were not counted."""
    args = parse_paths(__doc__, "settings", "classes", "metrics")
    settings = read_settings(args.settings, CostRunSettings)
    torch.manual_seed(0)
    model = build_by_name(
        settings.builder,
        num_classes=len(read_csv(args.classes)),
        arguments=settings.arguments,
    )
    record = count_costs(model, channels=settings.channels, image_size=settings.input_px)
    write_json(args.metrics, record)
    print(f"{settings.model}: {record['parameters']:,} parameters, {record['macs']:,} MACs")
    print(f"not counted: {record['uncounted'] or 'nothing'}")
    if counts_disagree(record):
        print(f"warning: torch counts {record['flops'] // 2:,} MACs; one of the counts is wrong")


if __name__ == "__main__":
    run(main)
