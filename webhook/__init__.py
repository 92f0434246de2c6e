"""kube-stepup: step-up authentication for Kubernetes."""

__version__ = "0.1.0"
