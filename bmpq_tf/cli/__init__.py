"""The installed commands: bmpq-export, -evaluate, -inspect, -tune and -arm64. Internal."""
