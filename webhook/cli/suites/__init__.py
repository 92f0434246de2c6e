"""Suites of `stepup policy test --suite`: requests by named users, and what policies should say to each."""
