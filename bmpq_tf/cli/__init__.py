"""The installed commands: bmpq-export, bmpq-evaluate, bmpq-inspect, bmpq-tune. Internal."""
