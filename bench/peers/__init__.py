"""Other engines, each measured in its own environment (`bench/.venvs/NAME`, made from `NAME.txt`)."""
