"""A run's configuration: what it holds, read from files of ours and of the published code. No torch."""

from slimtrain.config.config import Config, dump_config
from slimtrain.config.reading import make_config, read_config

__all__ = ["Config", "dump_config", "make_config", "read_config"]
