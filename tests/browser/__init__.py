"""Chromium, driven by Playwright, before a real kube-apiserver and our own servers."""
