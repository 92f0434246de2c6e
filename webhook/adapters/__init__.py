"""Everything that touches the outside: the Kubernetes API, keys, stores, audit. The core never imports this."""
