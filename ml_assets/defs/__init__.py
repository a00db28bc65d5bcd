"""The rooms of the graph. Each package builds one group of assets, with its checks and automation."""
