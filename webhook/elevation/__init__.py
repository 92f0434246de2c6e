"""The elevation server: an aggregated API of kube-apiserver that asks people for proof and signs assertions."""
